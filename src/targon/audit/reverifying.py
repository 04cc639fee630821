"""Published answers, checked again on one's own engine: a sample that anyone draws alike.

Which answers are drawn follows from the head of the audited log, so that nobody picks them. Each must be the very
answer that the log tells of; then one's own engine judges it, and must come to the same outcome, and to a score that
differs by no more than honest engines do by the calibration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from targon.audit.errors import Unreadable
from targon.audit.faults import Faults
from targon.audit.fetching import MAX_TRANSCRIPTS_BYTES
from targon.audit.folding import Wanted
from targon.audit.hashing import opened
from targon.audit.report import Report
from targon.audit.shelf import Shelf
from targon.protocol.errors import MalformedMessage
from targon.protocol.segments import transcripts_file
from targon.verification import Band, CheckedAnswer, SignedAnswer

LEAST_MARGIN: Final = 0.01
"""By so much two honest engines' scores may always differ."""

Check = Callable[[SignedAnswer], Awaitable[CheckedAnswer]]
"""Judges an answer on one's own engine."""


def draw_answers(shelf: Shelf, number: int, faults: Faults) -> list[SignedAnswer]:
    """Some of the published answers: those of the lowest ranks, SHA-256(head of the log ‖ attempt (8, big-endian)).

    Every file of answers is held to its manifest. It blocks.
    """
    if not shelf.bodies:
        return []
    head = bytes.fromhex(shelf.bodies[-1].head)
    ranked: list[tuple[bytes, SignedAnswer]] = []
    for body in shelf.bodies:
        if body.transcripts is None:
            continue
        name = transcripts_file(body.number)
        try:
            with opened(shelf.folder / name, MAX_TRANSCRIPTS_BYTES) as file:
                data = file.read()
        except FileNotFoundError:
            faults.add("omitted", name, "no such file", "the answers that the manifest tells of")
            continue
        except (OSError, Unreadable) as error:
            faults.add("malformed", name, str(error), "a file of answers")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != body.transcripts:
            faults.add(
                "tampered", name, f"SHA-256 {found[:12]}…", f"{body.transcripts[:12]}…, as its manifest says"
            )
            continue
        for place, line in enumerate(data.splitlines(), 1):
            try:
                answer = SignedAnswer.from_bytes(line)
            except MalformedMessage as error:
                faults.add("malformed", f"{name}, line {place}", str(error), "a signed answer")
                break
            number_of = answer.request.attempt_number
            ranked.append((hashlib.sha256(head + number_of.to_bytes(8, "big")).digest(), answer))
        ranked.sort(key=lambda pair: pair[0])
        del ranked[number:]
    return [answer for _, answer in ranked]


def want(answers: Iterable[SignedAnswer], wanted: Wanted) -> None:
    """Have the log's records of these answers noted."""
    for answer in answers:
        wanted.attempts[answer.request.attempt_number] = None
        wanted.verdicts[answer.request.attempt_number] = None


async def reverify(answers: Iterable[SignedAnswer], check: Check, wanted: Wanted, report: Report) -> None:
    """Judge answers again, and compare with the log."""
    for answer in answers:
        number = answer.request.attempt_number
        where = f"attempt {int(number)}"
        attempt, verdict = wanted.attempts.get(number), wanted.verdicts.get(number)
        if attempt is None or verdict is None:
            report.faults.add(
                "transcript", where, "a published answer", "one whose attempt and verdict the log holds"
            )
            continue
        receipt = (
            verdict.receipt or answer.response.receipt
        )  # none is logged of an answer whose form is wrong
        if answer.request.digest() != attempt.request_digest or answer.response.receipt != receipt:
            report.faults.add(
                "transcript",
                where,
                "another request or receipt",
                "those that the log tells of, by their digests",
            )
            continue
        checked = await check(answer)
        found = checked.verdict
        margin = _margin(checked)
        row: dict[str, Any] = {
            "attempt": int(number),
            "prover": attempt.prover,
            "outcome": found.outcome,
            "score": found.score,
            "logged_outcome": verdict.outcome,
            "logged_score": verdict.score,
            "margin": margin,
            "reason": found.reason,
        }
        report.reverified.append(row)
        if found.outcome == "inconclusive" or verdict.outcome == "inconclusive":
            continue  # one of the two could not tell
        if found.outcome != verdict.outcome or abs(found.score - verdict.score) > margin:
            report.faults.add(
                "reverify",
                where,
                f"{verdict.outcome} with a score of {verdict.score:.4f} in the log",
                f"{found.outcome} with {found.score:.4f} ± {margin:.4f}, by one's own engine",
            )


def _margin(checked: CheckedAnswer) -> float:
    """By how much two honest engines' scores of one answer may differ: twice the share of positions in which the worst
    honest one of the calibration differed."""
    band = checked.band
    if not isinstance(band, Band):
        return LEAST_MARGIN
    shares = [sum(each.mismatches) / each.positions for each in band.configurations if each.positions]
    return max(LEAST_MARGIN, 2 * max(shares, default=0.0))
