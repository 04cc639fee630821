"""The audit of a folder as a whole: what lies there, folded and hashed, and compared with what else is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from targon.audit.auditor import audit_shelf
from targon.audit.faults import Faults
from targon.audit.folding import CommitDigest, Wanted
from targon.audit.hashing import opened
from targon.audit.proving import calibrations_at_hand
from targon.audit.report import Report
from targon.audit.reverifying import draw_answers, want
from targon.audit.shelf import compare_copies, look
from targon.protocol import countersignatures
from targon.protocol.errors import InvalidSignature, MalformedMessage, ReceiptMismatch
from targon.protocol.filed import ReceiptStatement
from targon.verification import SignedAnswer

MAX_RECEIPT_BYTES = 65_536


def audit_folder(
    folder: Path,
    *,
    calibrations: Iterable[Path] = (),
    receipts: Sequence[Path] = (),
    against: Path | None = None,
    commit_digest: CommitDigest | None = None,
    wanted: Wanted | None = None,
    answers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Report, list[SignedAnswer]]:
    """Audit a folder of segments; returns what was found, and the answers that were drawn. It blocks while it works.

    Args:
        calibrations: files and folders of calibrations, beside those that come with the software.
        receipts: files of countersigned receipts that the log must hold.
        against: another copy of the verifier's segments, which must say the same.
        commit_digest: the chain's; None: commits to weights are not checked.
        wanted: records that are to be noted on the way.
        answers: how many published answers to draw, whose records are then noted, too.
        progress: told how many records were folded, now and then.

    Raises:
        Unreadable: if there are no segments, or a file that was named can't be read.
        CalibrationError: if a calibration that was named can't be used.
        AuditError: if the process that hashes ended by itself.
    """
    report, wanted, places = Report(), wanted or Wanted(), tuple(calibrations)
    calibrations_at_hand(places)  # whether they can be used
    shelf = look(folder, report.faults)
    if against is not None:
        other = look(against, Faults())
        both = compare_copies(shelf, other, report.faults)
        report.notes.append(f"{both} segments were compared with the other copy's")
    statements = [(path, statement) for path in receipts if (statement := _statement(path, report.faults))]
    for _, statement in statements:
        body = statement.countersignature.body
        wanted.records[body.record] = None
    drawn = draw_answers(shelf, answers, report.faults) if answers else []
    want(drawn, wanted)
    audit_shelf(
        shelf, report, calibrations=places, commit_digest=commit_digest, wanted=wanted, progress=progress
    )
    for path, statement in statements:
        _look_up(path, statement, wanted, report)
    _say_what_is_open(report)
    return report, drawn


def _statement(path: Path, faults: Faults) -> ReceiptStatement | None:
    with opened(path, MAX_RECEIPT_BYTES) as file:
        data = file.read()
    try:
        statement = ReceiptStatement.from_bytes(data)
        countersignatures.check(statement.countersignature, statement.receipt)
    except (MalformedMessage, ReceiptMismatch, InvalidSignature) as error:
        faults.add("receipt", str(path), str(error), "a receipt with its verifier's countersignature")
        return None
    return statement


def _look_up(path: Path, statement: ReceiptStatement, wanted: Wanted, report: Report) -> None:
    """Whether the log holds a receipt where its verifier signed that it does."""
    body = statement.countersignature.body
    report.receipts_checked += 1
    if (body.verifier, body.netuid, body.genesis) != (report.verifier, report.netuid, report.genesis):
        report.faults.add("receipt", str(path), f"one of {body.verifier}", f"one of {report.verifier}")
        return
    found = wanted.records.get(body.record)
    if body.record >= report.records:
        report.notes.append(
            f"{path}: its record {body.record} lies beyond what could be audited, which ends with record "
            f"{report.records - 1}: it is not published yet, or left out"
        )
    elif found != body.record_hash:
        report.faults.add(
            "forked",
            body.record,
            f"{(found or 'nothing')[:12]}… in the log",
            f"{body.record_hash[:12]}…, which the verifier signed for the receipt in {path}",
        )


def _say_what_is_open(report: Report) -> None:
    draws = report.draws
    if draws.unchecked:
        report.notes.append(
            f"the draws of {draws.unchecked} attempts can't be checked yet: their interval's secret is not revealed"
        )
    if report.evidence_unchecked:
        report.notes.append(
            f"the evidence of {report.evidence_unchecked} verdicts was not computed again: these calibrations are not "
            f"at hand: {', '.join(digest[:12] + '…' for digest in report.calibrations_missing) or 'none was named'}"
        )
    if report.commits_unchecked:
        report.notes.append(
            f"{report.commits_unchecked} commits to weights were not checked: it takes the chain and a revealed secret"
        )
