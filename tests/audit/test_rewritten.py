"""A verifier that rewrites its own history and signs it anew: what it can't make fit is found and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.written_log import Life
from targon.audit.folding import Wanted
from targon.ledger import Answered, Verdict, record_hash
from targon.protocol import countersignatures, segments
from targon.protocol.filed import ReceiptStatement
from targon.protocol.records import LogLine
from tests.audit.world import VERIFIER, Published

# -- the verifier itself rewrites its history ---------------------------------------------------------------


def first(life: Life, kind: str, **fields: Any) -> int:
    return next(
        record.seq
        for record in life.records[200:]
        if record.event.kind == kind
        and all(getattr(record.event, name) == value for name, value in fields.items())
    )


def test_weights_that_the_log_does_not_make_are_named(life: Life, published: Published) -> None:
    proposal = first(life, "weights_proposed")

    def other(event: dict[str, Any]) -> dict[str, Any]:
        return event | {"weights": [[uid, max(1, weight - 1)] for uid, weight in event["weights"]]}

    published.change(proposal, other)
    published.change(proposal + 1, other)
    report = published.audit()
    assert report.faults.kept[0].kind == "weights"
    assert report.faults.kept[0].record == proposal


def test_another_prover_than_the_drawn_one_is_named(life: Life, published: Published) -> None:
    seq = next(r.seq for r in life.records[200:] if r.event.kind == "attempt" and r.event.route is not None)
    published.change(
        seq, lambda event: event | {"route": event["route"] | {"turn": event["route"]["turn"] + 1}}
    )
    assert "draw" in published.kinds()


@pytest.mark.parametrize("audited", [True, False])
def test_an_audit_that_was_not_drawn_or_was_left_out_is_named(
    life: Life, published: Published, audited: bool
) -> None:
    def may_change(event: object) -> bool:
        return isinstance(event, Answered) and event.audited is not audited

    attempts = {r.seq for r in life.records if r.event.kind == "attempt" and r.event.route is not None}
    seq = next(
        r.seq
        for r in life.records[200:]
        if isinstance(r.event, Answered) and may_change(r.event) and r.event.attempt in attempts
    )
    published.change(seq, lambda event: event | {"audited": audited})
    kinds = {fault.kind for fault in published.audit().faults.kept if fault.record == seq}
    assert "audit" in kinds


def test_a_receipt_that_its_prover_never_signed_is_named(life: Life, published: Published) -> None:
    seq = first(life, "answered")
    published.change(
        seq,
        lambda event: (
            event
            | {
                "receipt": event["receipt"]
                | {"body": event["receipt"]["body"] | {"completion_digest": "77" * 32}}
            }
        ),
    )
    faults = published.audit(wanted=Wanted(signatures=100_000)).faults.kept
    assert ("receipt", seq) in [(fault.kind, fault.record) for fault in faults]
    assert ("receipt", seq) not in [
        (fault.kind, fault.record) for fault in published.audit(wanted=Wanted(signatures=0)).faults.kept
    ]


def test_as_many_signatures_are_checked_as_somebody_wants(life: Life, published: Published) -> None:
    signed = sum(
        record.event.kind in ("answered", "verdict") and getattr(record.event, "receipt", None) is not None
        for record in life.records[: life.standings.released]
    )
    assert published.audit(wanted=Wanted(signatures=0)).signatures_checked == 0
    assert published.audit(wanted=Wanted(signatures=100_000)).signatures_checked == signed


def test_another_secret_than_was_committed_to_is_named(life: Life, published: Published) -> None:
    seq = first(life, "interval_closed")
    published.change(seq, lambda event: event | {"secret": "77" * 32})
    assert {"commitment", "history"} <= published.kinds()


def test_evidence_that_does_not_follow_is_named(life: Life, published: Published) -> None:
    seq = next(r.seq for r in life.records[200:] if isinstance(r.event, Verdict) and r.event.observed)

    def kinder(event: dict[str, Any]) -> dict[str, Any]:
        wealth = event["evidence_after"]["log_wealth"]
        return event | {
            "evidence_after": event["evidence_after"] | {"log_wealth": [w - 1e-9 for w in wealth]}
        }

    published.change(seq, kinder)
    assert published.audit().faults.kept[0].kind == "evidence"


def test_a_verdict_left_out_is_history_that_cannot_be(life: Life, published: Published) -> None:
    seq = next(r.seq for r in life.records[200:] if isinstance(r.event, Verdict))
    published.change(seq, lambda _: {"block": 99, "kind": "step_closed", "version": 1})
    assert "history" in published.kinds()


def test_an_event_of_no_known_form_is_named(life: Life, published: Published) -> None:
    seq = first(life, "step_closed")
    published.change(seq, lambda event: event | {"more": 1})
    report = published.audit()
    assert (report.faults.kept[0].kind, report.faults.kept[0].record) == ("malformed", seq)


def test_one_whose_json_is_not_canonical_is_named(life: Life, published: Published) -> None:
    seq = first(life, "step_closed")
    number = next(n for n in range(published.count) if published.manifest(n).body.last >= seq)
    lines = published.lines(number)
    at = seq - published.manifest(number).body.first
    record = LogLine.from_bytes(lines[at][:-1])
    event = record.event.replace(b'"kind"', b' "kind"')
    made = LogLine(seq, record.prev, record_hash(seq, record.prev, event), event)
    published.write(number, [*lines[:at], made.to_bytes() + b"\n", *lines[at + 1 :]])
    assert "malformed" in published.kinds()


# -- forks --------------------------------------------------------------------------------------------------


def fork(life: Life, published: Published) -> None:
    """The verifier tells another story from one attempt on, as whole as the first."""
    seq = next(r.seq for r in life.records[200:] if isinstance(r.event, Answered))
    published.change(seq, lambda event: event | {"tokens": event["tokens"] + 1})


def test_two_histories_that_a_verifier_signed_are_proof_of_a_fork(
    life: Life, published: Published, untouched: Published
) -> None:
    fork(life, published)
    report = published.audit(against=untouched.folder)
    assert "forked" in report.faults.counts


def test_the_same_history_is_no_fork(published: Published, untouched: Published) -> None:
    published.sign_anew()
    assert published.audit(against=untouched.folder).exact


def countersigned(life: Life, tmp_path: Path) -> tuple[int, Path]:
    record = next(r for r in life.records[200:] if isinstance(r.event, Answered))
    assert isinstance(record.event, Answered)
    statement = ReceiptStatement(
        receipt=record.event.receipt,
        countersignature=countersignatures.countersign(
            record.event.receipt, record=record.seq, record_hash=record.hash, signer=VERIFIER
        ),
        block=record.event.block,
        audit=None,
    )
    path = tmp_path / "receipt.json"
    path.write_bytes(statement.to_bytes())
    return record.seq, path


def test_a_countersigned_receipt_is_found_in_the_log(
    life: Life, untouched: Published, tmp_path: Path
) -> None:
    _, path = countersigned(life, tmp_path)
    report = untouched.audit(receipts=[path])
    assert report.exact
    assert report.receipts_checked == 1


def test_a_countersigned_receipt_that_the_log_does_not_hold_shows_a_fork(
    life: Life, published: Published, tmp_path: Path
) -> None:
    seq, path = countersigned(life, tmp_path)
    fork(life, published)
    faults = published.audit(receipts=[path]).faults.kept
    assert [(fault.kind, fault.record) for fault in faults if fault.kind == "forked"] == [("forked", seq)]


def test_a_receipt_beyond_the_audited_part_is_said_to_be_unchecked(
    life: Life, published: Published, tmp_path: Path
) -> None:
    _, path = countersigned(life, tmp_path)
    for number in range(1, published.count):
        (published.folder / segments.segment_file(number)).unlink()
        (published.folder / segments.manifest_file(number)).unlink()
    (published.folder / "index.json").unlink()
    report = published.audit(receipts=[path])
    assert any("not published yet, or left out" in note for note in report.notes)


def test_a_forged_receipt_is_named(life: Life, untouched: Published, tmp_path: Path) -> None:
    _, path = countersigned(life, tmp_path)
    value = json.loads(path.read_bytes())
    value["countersignature"]["body"]["record"] += 1
    path.write_bytes(json.dumps(value).encode())
    assert untouched.kinds(receipts=[path]) == {"receipt"}
