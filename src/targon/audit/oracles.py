"""What a log says of oracles, held to what oracles signed; and, of several logs, whether they were told the same.

An oracle's own faults are named as the oracle's. Two commitments that contradict each other are proof by themselves:
both are shown as they were signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from targon.audit.errors import Unreadable
from targon.audit.faults import Faults
from targon.audit.hashing import MAX_FILE_BYTES, MAX_RECORD_BYTES, opened
from targon.audit.shelf import Shelf
from targon.ledger import InputsCommitted, OracleFaulted, ReliesOn, Verdict
from targon.protocol.errors import InvalidSignature, PrivateInputMismatch
from targon.protocol.keys import verify_signature
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import (
    CommitmentBody,
    PrivateInput,
    check_commitment,
    check_input,
    signed_input,
)
from targon.protocol.segments import segment_file

KEPT_PROOFS: Final = 10
"""Most pairs of contradicting commitments that are shown; the others are counted."""
SLACK_BLOCKS: Final = 2
"""Blocks within which a verifier has to say that it relies on an oracle no more."""
BACK_BLOCKS: Final = 5
"""A chain's nodes may be so far apart: one that is asked later may know fewer blocks."""


class SeenCommitment(NamedTuple):
    """A commitment in a log, in short."""

    oracle: Hotkey
    number: int
    first: Block
    last: Block
    digest: Digest
    """Of its body."""
    seen: Block
    record: int
    shelf: Shelf
    """Of the log."""


@dataclass(slots=True)
class OracleReport:
    """What an audit found of oracles."""

    commitments: list[SeenCommitment] = field(default_factory=list)
    late: int = 0
    """Commitments that were first seen in their period: the verifier took nothing of it."""
    without_place: int = 0
    """Commitments that have no place for the verifier whose log it is."""
    places: list[str] = field(default_factory=list)
    """For whom an oracle has places now, in words."""
    caught: list[str] = field(default_factory=list)
    """What the log itself says oracles were caught at."""
    compared: int = 0
    """Other logs that were compared."""
    reveals: int = 0
    """Periods whose reveals were checked."""
    proofs: list[dict[str, Any]] = field(default_factory=list)
    """Pairs of commitments that contradict each other, each as its oracle signed it."""

    def as_json(self) -> dict[str, Any]:
        return {
            "commitments": len(self.commitments),
            "late": self.late,
            "without_place": self.without_place,
            "places": self.places,
            "oracles": sorted({seen.oracle for seen in self.commitments}),
            "caught": self.caught,
            "logs_compared": self.compared,
            "reveals_checked": self.reveals,
            "proofs": self.proofs,
        }

    def lines(self) -> list[str]:
        """For people; none where the log never spoke of an oracle."""
        if not (self.commitments or self.caught):
            return self.places
        oracles = len({seen.oracle for seen in self.commitments})
        counted = (
            f"{len(self.commitments)} commitments of {oracles} oracles checked, {self.late} of them first seen in "
            f"their period; compared with {self.compared} other logs; {self.reveals} periods' reveals computed again"
        )
        without = f"{self.without_place} of them have no place for this verifier"
        return [counted, *([without] if self.without_place else []), *self.places, *self.caught]


class Oracles:
    """The events about oracles of one log, as they come."""

    def __init__(self, shelf: Shelf, faults: Faults) -> None:
        self.report = OracleReport()
        self._shelf = shelf
        self._faults = faults
        self._newest: dict[Hotkey, CommitmentBody] = {}
        self._relied: list[tuple[int, ReliesOn]] = []
        self._unchained: set[Hotkey] = set()
        self._shown: list[tuple[int, OracleFaulted, PrivateInput]] = []
        self._stepped: list[tuple[Block, Block]] = []
        """Runs of blocks in which the verifier worked, first and last."""

    def step_closed(self, block: Block) -> None:
        """The verifier has worked in a block."""
        if self._stepped and block <= self._stepped[-1][1] + 1:
            first, last = self._stepped.pop()
            block, last = first, max(block, last)
            self._stepped.append((block, last))
        else:
            self._stepped.append((block, block))

    def verdict(self, seq: int, event: Verdict) -> None:
        """A verdict that rests on borrowed engines says so, as the log does; and no other."""
        relied = self._relied[-1][1] if self._relied else None
        lent = f"{relied.agreeing} of {len(relied.reference)}" if relied and relied.reference else None
        said = event.evidence.get("borrowed")
        if said != lent and (said is not None or (event.outcome == "pass" and event.method == "divergence")):
            self._faults.add("reliance", seq, f"a verdict by engines borrowed from {said}", f"from {lent}")

    def inputs_committed(self, seq: int, event: InputsCommitted) -> None:
        body = event.commitment.body
        before = self._newest.get(body.oracle)
        follows = before is not None and before.number == body.number - 1
        try:
            check_commitment(event.commitment, before if follows else None)
            if before is not None and (before.number < body.number) and body.last < before.first:
                raise PrivateInputMismatch("first", body.first, f"more than {before.last}", of="commitment")
            if before is not None and (before.number > body.number) and body.first > before.last:
                raise PrivateInputMismatch(
                    "number", body.number, f"more than {before.number}", of="commitment"
                )
        except InvalidSignature as error:
            self._faults.add("oracle_unsigned", seq, str(error), f"a commitment signed by {body.oracle}")
            return  # it says nothing of the oracle
        except PrivateInputMismatch as error:
            self._unchained.add(body.oracle)
            self._faults.add("oracle_unchained", seq, str(error), "one that follows the one before")
        if self._stepped and event.block < self._stepped[-1][1] - BACK_BLOCKS:
            self._faults.add(
                "history",
                seq,
                f"a commitment first seen in block {event.block}",
                f"about block {self._stepped[-1][1]}, in which the verifier had worked by then",
            )
        if before is None or body.number > before.number:
            self._newest[body.oracle] = body
        self.report.late += event.block >= body.first
        self.report.without_place += self._shelf.bodies[0].verifier not in body.verifiers
        self.report.commitments.append(
            SeenCommitment(
                body.oracle,
                body.number,
                body.first,
                body.last,
                body.digest(),
                event.block,
                seq,
                self._shelf,
            )
        )

    def relies_on(self, seq: int, event: ReliesOn) -> None:
        self._relied.append((seq, event))

    def oracle_faulted(self, seq: int, event: OracleFaulted) -> None:
        self.report.caught.append(
            f"oracle {event.oracle} was caught in block {event.block}: {event.what} (record {seq})"
        )
        of = [seen for seen in self.report.commitments if seen.oracle == event.oracle]
        if event.what == "equivocated" and next(contradictions(of), None) is None:
            self._faults.add(
                "accusation", seq, "no two commitments that contradict each other", "both in the log"
            )
        if event.what == "unchained" and event.oracle not in self._unchained:
            self._faults.add("accusation", seq, "no commitment that doesn't follow", "it in the log")
        given = event.given
        if given is None:
            if event.what in ("misdealt", "uncommitted"):
                self._faults.add("accusation", seq, f"{event.what}, and nothing given", "what was given")
            return
        try:
            verify_signature(event.oracle, signed_input(given.body), bytes.fromhex(given.signature))
        except InvalidSignature as error:
            self._faults.add(
                "accusation", seq, f"a private input as given by {event.oracle}: {error}", "its own"
            )
            return
        self._shown.append((seq, event, given))

    def tell(self, faults: Faults) -> OracleReport:
        """What was found, once all was read; what only then can be said is added to the faults."""
        self._faults = faults
        for number, (seq, event) in enumerate(self._relied):
            until = self._relied[number + 1][1].block if number + 1 < len(self._relied) else None
            for oracle in event.inputs:
                self._relied_in_time(seq, oracle, event.block, until)
        for seq, accused, given in self._shown:
            self._is_a_lie(seq, accused, given)
        compare(self.report, [], faults)
        return self.report

    def _relied_in_time(self, seq: int, oracle: Hotkey, since: Block, until: Block | None) -> None:
        """Nothing is taken in a block that no commitment covers which was seen before its period began."""
        covered = [
            (seen.first, seen.last)
            for seen in self.report.commitments
            if seen.oracle == oracle and seen.seen < seen.first
        ]
        for first, last in self._stepped:
            begins, ends = max(first, since), last if until is None else min(last, Block(until - 1))
            for gap, gap_ends in _uncovered(begins, ends, covered):
                if gap_ends - gap <= SLACK_BLOCKS:
                    continue
                self._faults.add(
                    "reliance",
                    seq,
                    f"private inputs of {oracle} in blocks {gap} to {gap_ends}, for which no commitment had been seen "
                    "before their period",
                    "one that was seen before its first block",
                )

    def _is_a_lie(self, seq: int, event: OracleFaulted, given: PrivateInput) -> None:
        """Whether what was given is what it is called, as far as that shows without the chain."""
        if given.body.oracle != event.oracle:
            self._faults.add(
                "accusation", seq, f"a private input of {given.body.oracle}", f"{event.oracle}'s"
            )
            return
        of = [seen for seen in self.report.commitments if seen.digest == given.body.commitment]
        committed = committed_in(of[0]) if of and event.what == "uncommitted" else None
        if committed is None:
            return
        try:
            check_input(given, CommitmentBody.from_json(committed["body"]), verifier=given.body.verifier)
        except (PrivateInputMismatch, InvalidSignature):
            return
        self._faults.add("accusation", seq, "a private input that was committed to", "one that was not")


def _uncovered(
    first: Block, last: Block, covered: Iterable[tuple[Block, Block]]
) -> Iterator[tuple[Block, Block]]:
    """The runs of blocks from first to last that nothing covers."""
    at = first
    for begins, ends in sorted(covered):
        if begins > last:
            break
        if begins > at:
            yield at, Block(begins - 1)
        at = max(at, Block(ends + 1))
    if at <= last:
        yield at, last


def contradictions(seen: Iterable[SeenCommitment]) -> Iterator[tuple[SeenCommitment, SeenCommitment]]:
    """Pairs that contradict each other: of one number, or for the same blocks, and not the same."""
    by_oracle: dict[Hotkey, list[SeenCommitment]] = {}
    for each in seen:
        by_oracle.setdefault(each.oracle, []).append(each)
    for listed in by_oracle.values():
        numbered: dict[int, SeenCommitment] = {}
        for each in listed:
            other = numbered.setdefault(each.number, each)
            if other.digest != each.digest:
                yield other, each
        furthest: SeenCommitment | None = None
        for each in sorted(listed, key=lambda one: (one.first, one.last)):
            if (
                furthest is not None
                and each.first <= furthest.last
                and each.digest != furthest.digest
                and each.number != furthest.number
            ):
                yield furthest, each
            if furthest is None or each.last > furthest.last:
                furthest = each


def compare(report: OracleReport, others: Sequence[OracleReport], faults: Faults) -> None:
    """Whether oracles told several verifiers the same; with no others, whether they told this one one thing.

    Contradictions within one log are found when that log is audited; between logs, here.
    """
    report.compared += len(others)
    together = [*report.commitments, *(seen for other in others for seen in other.commitments)]
    for one, other in contradictions(together):
        if others and one.shelf is other.shelf:
            continue
        faults.add(
            "oracle_equivocated",
            f"oracle {one.oracle}",
            f"commitment {other.number} for blocks {other.first} to {other.last} ({other.digest[:12]}…) in record "
            f"{other.record} of {_name(other.shelf)}",
            f"the same as commitment {one.number} for blocks {one.first} to {one.last} ({one.digest[:12]}…) in record "
            f"{one.record} of {_name(one.shelf)}",
        )
        if len(report.proofs) < KEPT_PROOFS:
            report.proofs.append(
                {"oracle": one.oracle, "one": committed_in(one), "other": committed_in(other)}
            )


def committed_in(seen: SeenCommitment) -> dict[str, Any] | None:
    """A commitment as it was signed, from its log; None if that can't be read any more."""
    for body in seen.shelf.bodies:
        if not body.first <= seen.record <= body.last:
            continue
        try:
            with opened(seen.shelf.folder / segment_file(body.number), MAX_FILE_BYTES) as file:
                lines = iter(lambda: file.readline(MAX_RECORD_BYTES + 1), b"")
                line = next(islice(lines, seen.record - body.first, None), b"null")
            commitment: dict[str, Any] = json.loads(line)["event"]["commitment"]
        except (OSError, Unreadable, ValueError, KeyError, TypeError):
            return None
        return commitment
    return None


def _name(shelf: Shelf) -> str:
    return f"the log of {shelf.bodies[0].verifier}" if shelf.bodies else "a log"
