"""The fold of a folder of segments, with everything that is computed again on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from targon.audit.bounds import Bounds
from targon.audit.drawing import Drawing
from targon.audit.errors import Unreadable
from targon.audit.faults import Faults
from targon.audit.hashing import MAX_FILE_BYTES, opened
from targon.audit.judging import Judging
from targon.audit.lean import LeanAnswered, LeanAttempt
from targon.audit.lines import Broken, pieces, records
from targon.audit.oracles import Oracles
from targon.audit.report import Report
from targon.audit.revealed import Secrets
from targon.audit.shelf import Shelf
from targon.audit.signatures import SIGNATURES, Signatures
from targon.audit.waiting import Waiting, tell_of_chances
from targon.ledger import (
    GENESIS_HASH,
    Answered,
    Attempt,
    CalibrationAdopted,
    InvalidHistory,
    LogOpened,
    RoutesSet,
    Standings,
    StepClosed,
    UnknownEvent,
    Verdict,
    WeightsProposed,
    WeightsSet,
)
from targon.protocol import draws
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import AttemptNumber, Block, Digest, Hotkey, Uid
from targon.protocol.schedule import interval_of
from targon.protocol.segments import SegmentBody, segment_file
from targon.protocol.weights import NoWeights

CommitDigest = Callable[[Hotkey, Mapping[Uid, int], int, bytes], Digest]
"""What stands on chain when a hotkey has committed to weights: :meth:`targon.chain.Chain.commit_digest`."""


@dataclass(slots=True)
class Wanted:
    """Records that somebody asks for by their place: filled in as they are read."""

    records: dict[int, Digest | None] = field(default_factory=dict)
    """Place to hash."""
    attempts: dict[int, Attempt | LeanAttempt | None] = field(default_factory=dict)
    """By number."""
    verdicts: dict[int, Verdict | None] = field(default_factory=dict)
    """By the attempt's number."""
    heads: dict[Digest, int] = field(default_factory=dict)
    """Each interval's head that the log holds, with its interval."""
    interval_blocks: int = 1
    """Length of an interval, by the log's profile."""
    weights_block: Block | None = None
    """The block in which the newest weights were set."""
    signatures: int = SIGNATURES
    """About how many receipts to check their provers' signatures of."""


class _Stopped(Exception):
    """The fold can't go on."""


class Folding:
    """The fold, with everything that is computed again on the way."""

    def __init__(
        self,
        shelf: Shelf,
        commit_digest: CommitDigest | None,
        wanted: Wanted,
    ) -> None:
        self.standings = Standings()
        self.faults = Faults()
        self._shelf = shelf
        self._wanted = wanted
        self._commit_digest = commit_digest
        self._drawing = Drawing(self.standings, Secrets(self._contents()), self.faults)
        self._bounds = Bounds(self.standings, self.faults)
        self._judging = Judging(self.standings, self.faults)
        last = shelf.bodies[-1] if shelf.bodies else None
        head, records = (GENESIS_HASH, 0) if last is None else (Digest(last.head), last.last + 1)
        self._signatures = Signatures(head, records, wanted.signatures)
        self._waiting = Waiting()
        self._oracles = Oracles(shelf, self.faults)
        self._openings: dict[int, int] = {}
        """Intervals, by the record that opened them."""
        self._open = self.standings.open_attempts
        self._weights_checked = 0
        self._commits_checked = 0
        self._commits_unchecked = 0
        self._before: dict[str, Callable[[int, Any], None]] = {
            "log_opened": self._log_opened,
            "calibration_adopted": self._calibration_adopted,
            "attempt": self._attempt,
            "answered": self._answered,
            "verdict": self._verdict,
            "withdrawn": self._withdrawn,
            "prover_convicted": self._convicted,
            "prover_joined": lambda _, event: self._drawing.joined(event.hotkey, event.uid),
            "prover_left": lambda _, event: self._drawing.left(event.hotkey, event.uid),
            "routes_set": self._routes_set,
            "interval_opened": self._interval_opened,
            "interval_closed": self._interval_closed,
            "step_closed": self._step_closed,
            "blocks_skipped": self._bounds.skipped,
            "weights_proposed": self._weights_proposed,
            "weights_set": self._weights_set,
            "inputs_committed": self._oracles.inputs_committed,
            "relies_on": self._oracles.relies_on,
            "oracle_faulted": self._oracles.oracle_faulted,
        }

    def _contents(self) -> Iterator[bytes]:
        for body in self._shelf.bodies:
            try:
                with opened(self._shelf.folder / segment_file(body.number), MAX_FILE_BYTES) as file:
                    yield from pieces(file)
            except (OSError, Unreadable):
                return  # named by who hashes it

    def run(self, progress: Callable[[int], None] | None) -> None:
        """Fold everything, as far as it goes."""
        try:
            for body in self._shelf.bodies:
                self._segment(body)
                if progress is not None:
                    progress(body.last + 1)
        except _Stopped:
            pass

    def _segment(self, body: SegmentBody) -> None:
        before, apply, wanted = self._before, self.standings.apply, self._wanted.records
        seq = body.first
        try:
            with opened(self._shelf.folder / segment_file(body.number), MAX_FILE_BYTES) as file:
                for record in records(file, body):
                    seq, _, hash_, event = record
                    check = before.get(event.kind)
                    if check is not None:
                        check(seq, event)
                    apply(record)  # type: ignore[arg-type]
                    if seq in wanted:
                        wanted[seq] = hash_
                    seq += 1
        except InvalidHistory as error:
            self.faults.add("history", seq, str(error), "a record that follows from those before it")
        except (UnknownEvent, MalformedMessage) as error:
            self.faults.add("malformed", seq, str(error), "an event of version 1")
        except (OSError, Unreadable, Broken):
            pass  # named by who hashes it
        else:
            return
        raise _Stopped

    # -- by kind, each just before it is folded in -------------------------------------------------------

    def _log_opened(self, seq: int, event: LogOpened) -> None:
        body = self._shelf.bodies[0]
        said = (event.genesis, event.netuid, event.verifier)
        signed = (body.genesis, body.netuid, body.verifier)
        if said != signed:
            self.faults.add(
                "stranger",
                seq,
                f"the log of {said[2]} on subnet {said[1]} of {said[0][:12]}…",
                f"that of {signed[2]} on subnet {signed[1]} of {signed[0][:12]}…, who signed it",
            )
        self._judging.network = (event.genesis, str(event.netuid), event.verifier)
        self._judging.models = {model.name: model.model_digest for model in event.models}
        self._wanted.interval_blocks = event.profile.interval_blocks

    def _calibration_adopted(self, _: int, event: CalibrationAdopted) -> None:
        self._judging.models[event.model] = event.model_digest

    def _interval_opened(self, seq: int, event: Any) -> None:  # noqa: ANN401 - of its kind
        self._bounds.interval_opened(seq, event)
        self._judging.tiers_settled()
        self._waiting.interval = event.interval
        self._drawing.interval_opened(seq, event.interval, event.block, event.commitment)
        self._openings[seq] = event.interval
        self._wanted.records[seq] = None

    def _interval_closed(self, *_: object) -> None:
        self._bounds.interval_closed()
        self._drawing.interval_closed()

    def _step_closed(self, seq: int, event: StepClosed) -> None:
        self._bounds.step_closed(seq, event)
        self._oracles.step_closed(event.block)
        self._drawing.step_closed(seq, event.block)

    def _routes_set(self, seq: int, event: RoutesSet) -> None:
        self._bounds.routes_set(seq, event)
        self._drawing.routes_set(event.model, event.shares)

    def _attempt(self, seq: int, event: Attempt | LeanAttempt) -> None:
        self._bounds.attempt(seq, event)
        self._judging.attempt(seq, event.prover)
        self._drawing.attempt(seq, event)
        if seq in self._wanted.attempts:
            self._wanted.attempts[seq] = event

    def _answered(self, seq: int, event: Answered | LeanAnswered) -> None:
        number = event.attempt
        attempt = self._open.get(number)
        if attempt is None:
            return  # the fold says what is wrong
        if event.audited:
            self._waiting.begin(number, attempt.prover, event.block)
        else:
            self._judging.ended(number)
        self._drawing.answered(seq, attempt.prover, number, event.audited)
        self._signatures.look(seq, number, event.receipt, self.faults)
        self._judging.receipt(seq, number, attempt, event.receipt.body)

    def _verdict(self, seq: int, event: Verdict) -> None:
        number = event.attempt
        attempt = self.standings.attempt(number)
        self._drawing.ended(number)
        self._waiting.end(number)
        if attempt is None:
            return  # the fold says what is wrong
        prover = attempt.prover
        tally = self._drawing.tally(prover)
        if event.outcome == "pass":
            tally.passed += 1
        elif event.outcome == "fail":
            tally.failed += 1
        else:
            tally.inconclusive += 1
        self._drawing.moved(prover)
        if number in self._wanted.verdicts:
            self._wanted.verdicts[number] = event
        self._judging.verdict(seq, event, attempt)
        self._oracles.verdict(seq, event)
        if event.receipt is not None:
            self._signatures.look(seq, number, event.receipt, self.faults)

    def _withdrawn(self, _: int, event: Any) -> None:  # noqa: ANN401 - of its kind
        attempt = self._open.get(event.attempt)
        self._drawing.ended(event.attempt)
        self._judging.ended(event.attempt)
        if attempt is not None:
            tally = self._drawing.tally(attempt.prover)
            setattr(tally, event.why, getattr(tally, event.why) + 1)

    def _convicted(self, _: int, event: Any) -> None:  # noqa: ANN401 - of its kind
        self._drawing.moved(event.prover)
        self._judging.convicted(event.prover)

    def _weights_proposed(self, seq: int, event: WeightsProposed) -> None:
        self._compare_weights(seq, dict(event.weights))
        if event.commit is None:
            return
        interval = interval_of(event.block, self.standings.profile.interval_blocks)
        secret = self._drawing.secrets.of(interval)
        opened_log = self.standings.opened
        if secret is None or self._commit_digest is None or opened_log is None:
            self._commits_unchecked += 1
            return
        self._commits_checked += 1
        salt = draws.weights_salt(secret, AttemptNumber(seq))
        expected = self._commit_digest(opened_log.verifier, dict(event.weights), event.version_key, salt)
        if expected != event.commit:
            self.faults.add(
                "commitment", seq, f"a commit {event.commit[:12]}… to weights", f"{expected[:12]}…, of these"
            )

    def _weights_set(self, seq: int, event: WeightsSet) -> None:
        self._wanted.weights_block = event.block
        if event.proposal is None:
            self._compare_weights(seq, dict(event.weights))

    def _compare_weights(self, seq: int, said: dict[Uid, int]) -> None:
        self._weights_checked += 1
        found = self.standings.weights()
        if isinstance(found, NoWeights):
            self.faults.add("weights", seq, f"{len(said)} weights", f"none: {found.reason}")
        elif found != said:
            uid = next(uid for uid in sorted({*found, *said}) if found.get(uid) != said.get(uid))
            self.faults.add(
                "weights",
                seq,
                f"{said.get(uid, 0)} for UID {uid}",
                f"{found.get(uid, 0)}, as the log makes it",
            )

    # -- the end -----------------------------------------------------------------------------------------

    def tell(self, report: Report) -> None:
        """Note what was found in a report."""
        standings, drawing = self.standings, self._drawing
        drawing.add_up()
        tell_of_chances(drawing, report)
        self._waiting.tell(standings, report)
        if self._judging.unknown:
            report.notes.append(
                f"{self._judging.unknown} receipts of work that earns nothing name a model that the log doesn't tell of"
            )
        report.oracles = self._oracles.tell(report.faults)
        for seq, interval in self._openings.items():
            if (head := self._wanted.records.get(seq)) is not None:
                self._wanted.heads[head] = interval
        report.segments = len(self._shelf.bodies)
        report.records = standings.head.seq + 1
        report.head = standings.head.hash
        report.block = standings.block
        report.interval = standings.interval
        if standings.opened is not None:
            report.verifier = standings.opened.verifier
            report.netuid = standings.opened.netuid
            report.genesis = Digest(standings.opened.genesis)
            report.provers = standings.provers()
        report.weights = dict(standings.last_weights)
        report.tallies = drawing.tallies
        report.draws = drawing.counts
        report.open_attempts = len(standings.open_attempts)
        for attempt in standings.open_attempts.values():
            report.open_by_prover[attempt.prover] = report.open_by_prover.get(attempt.prover, 0) + 1
        report.awaiting_verdict = len(standings.under_audit)
        report.signatures_checked = self._signatures.checked
        report.weights_checked = self._weights_checked
        report.commits_checked = self._commits_checked
        report.commits_unchecked = self._commits_unchecked
