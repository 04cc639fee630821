"""An untouched log audits to exactly nothing; whatever is done to it is found, and called by its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.written_log import Life
from targon.audit import Unreadable
from targon.ledger import Answered, Verdict
from targon.protocol import countersignatures, segments
from targon.protocol.filed import ReceiptStatement
from targon.protocol.primitives import Uid
from targon.protocol.records import LogLine
from tests.audit.world import OTHER, VERIFIER, Published, a_life, index_of

BLOCKS = 40


@pytest.fixture(scope="module")
def life() -> Life:
    return a_life(BLOCKS)


@pytest.fixture(scope="module")
def untouched(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return anyio.run(Published.of, life, tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def published(untouched: Published, tmp_path: Path) -> Published:
    """A copy, to be tampered with."""
    shutil.copytree(untouched.folder, tmp_path / "segments")
    return Published(tmp_path / "segments")


@pytest.fixture(scope="module")
def place(untouched: Published, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One that is laid out anew for each of many tries."""
    folder = tmp_path_factory.mktemp("place") / "segments"
    return Published(folder)


def lay_out(untouched: Published, place: Published) -> Published:
    shutil.rmtree(place.folder, ignore_errors=True)
    shutil.copytree(untouched.folder, place.folder)
    return place


def test_an_untouched_log_is_exact(life: Life, untouched: Published) -> None:
    report = untouched.audit()
    assert [str(fault) for fault in report.faults.kept] == []
    assert report.exact
    assert report.records == index_of(untouched.folder).records > 500
    assert report.head == index_of(untouched.folder).head
    assert report.draws.routes > 100
    assert report.draws.audits > 100
    assert report.draws.challenges > 50
    assert report.draws.own > 0
    assert report.draws.unchecked == 0
    assert report.evidence_checked > 50
    assert report.evidence_unchecked == 0
    assert report.weights_checked >= 2


def test_what_is_computed_again_is_what_the_verifier_has(life: Life, untouched: Published) -> None:
    report = untouched.audit()
    again = a_life(0)
    for record in life.records[: report.records][len(again.records) :]:
        again.standings.apply(record)
    assert report.provers == again.standings.provers()
    assert report.weights == again.standings.last_weights
    attempts = [record for record in life.records[: report.records] if record.event.kind == "attempt"]
    assert sum(tally.attempts for tally in report.tallies.values()) == len(attempts)


@pytest.mark.parametrize("beside", [True, False])
def test_a_process_beside_finds_the_same(
    published: Published, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    if beside:
        monkeypatch.setattr("targon.audit.auditor.BESIDE_FROM", 0)
    assert published.audit().exact
    lines = published.lines(2)
    lines[3] = lines[3].replace(b'"version":1', b'"version":2')
    published.write(2, lines)
    report = published.audit()
    assert report.faults.kept[0].kind == "tampered"
    assert report.faults.kept[0].record == published.manifest(2).body.first + 3


# -- whoever hands it on tampers --------------------------------------------------------------------------

NAMED = {"tampered", "malformed", "truncated", "forked", "omitted", "reordered"}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found(untouched: Published, place: Published, data: st.DataObject) -> None:
    published = lay_out(untouched, place)
    number = data.draw(st.integers(0, published.count - 1))
    path = published.folder / segments.segment_file(number)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert published.kinds() & NAMED


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_record_left_out_repeated_or_moved_is_named(
    untouched: Published, place: Published, data: st.DataObject
) -> None:
    published = lay_out(untouched, place)
    number = data.draw(st.integers(1, published.count - 1))
    lines = published.lines(number)
    at = data.draw(st.integers(0, len(lines) - 2))
    what = data.draw(st.sampled_from(["drop", "repeat", "swap", "cut"]))
    if what == "drop":
        del lines[at]
    elif what == "repeat":
        lines.insert(at + 1, lines[at])
    elif what == "swap":
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    else:
        del lines[at + 1 :]
    published.write(number, lines)
    expected = {"drop": "omitted", "repeat": "reordered", "swap": "reordered", "cut": "truncated"}[what]
    report = published.audit()
    assert report.faults.kept[0].kind == expected
    assert report.records <= published.manifest(number).body.first + at + 1


def test_a_segment_that_breaks_off_in_mid_line_is_truncated(published: Published) -> None:
    path = published.folder / segments.segment_file(1)
    path.write_bytes(path.read_bytes()[:-7])
    assert published.audit().faults.kept[0].kind == "truncated"


def test_a_missing_segment_is_named_and_what_follows_is_not_audited(published: Published) -> None:
    (published.folder / segments.segment_file(2)).unlink()
    report = published.audit()
    assert (report.faults.kept[0].kind, report.faults.kept[0].where) == ("omitted", "segment 2")
    assert report.records == published.manifest(2).body.first


def test_a_missing_manifest_is_named(published: Published) -> None:
    (published.folder / segments.manifest_file(2)).unlink()
    report = published.audit()
    assert {fault.kind for fault in report.faults.kept} == {"omitted"}
    assert report.segments == 2


def test_a_shortened_row_is_seen_by_its_index(published: Published) -> None:
    last = published.count - 1
    (published.folder / segments.segment_file(last)).unlink()
    (published.folder / segments.manifest_file(last)).unlink()
    assert published.kinds() == {"omitted"}


def test_an_index_that_hides_a_segment_is_named(published: Published) -> None:
    index = index_of(published.folder)
    body = published.manifest(published.count - 2).body
    shortened = index.model_copy(
        update={"segments": index.segments - 1, "records": body.last + 1, "head": body.head}
    )
    (published.folder / "index.json").write_bytes(shortened.to_bytes() + b"\n")
    assert published.kinds() == {"omitted"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 100, b"{" * 100_000])
@pytest.mark.parametrize("name", ["index.json", "segment-00000001.json"])
def test_messages_that_are_none_are_named(published: Published, name: str, content: bytes) -> None:
    (published.folder / name).write_bytes(content)
    assert "malformed" in published.kinds()


def test_exchanged_segments_are_named(published: Published) -> None:
    one, other = (published.folder / segments.segment_file(number) for number in (1, 2))
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    assert published.kinds() & {"omitted", "reordered"}
    assert "tampered" in published.kinds()


def test_exchanged_manifests_are_reordered(published: Published) -> None:
    one, other = (published.folder / segments.manifest_file(number) for number in (1, 2))
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    assert "reordered" in published.kinds()


def test_a_manifest_that_somebody_else_signed_is_named(published: Published) -> None:
    published.sign(published.manifest(1).body, OTHER)
    report = published.audit()
    assert report.faults.kept[0].kind == "signature"


def test_a_log_signed_by_another_hotkey_is_a_strangers(published: Published) -> None:
    for number in range(published.count):
        body = published.manifest(number).body
        published.sign(body.model_copy(update={"verifier": OTHER.ss58_address}), OTHER)
    published.sign_anew(OTHER)
    assert "stranger" in published.kinds()


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
    from targon.ledger import record_hash

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


# -- what is no folder of segments, or means harm -------------------------------------------------------------


def test_no_segments_at_all_cannot_be_audited(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="there are no segments here"):
        Published(tmp_path).audit()
    with pytest.raises(Unreadable, match="expected a folder of segments"):
        Published(tmp_path / "nowhere").audit()


def test_links_are_not_followed(published: Published) -> None:
    path = published.folder / segments.segment_file(1)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))
    assert "malformed" in published.kinds()


def test_a_file_beyond_every_bound_is_not_read(published: Published) -> None:
    with (published.folder / segments.segment_file(1)).open("r+b") as file:
        file.truncate(1 << 33)
    assert "malformed" in published.kinds()


def test_a_line_beyond_every_bound_is_named(published: Published) -> None:
    (published.folder / segments.segment_file(1)).write_bytes(b"{" * (9 << 20))
    report = published.audit()
    assert report.faults.kept[0].kind == "malformed"


def test_a_special_file_is_not_waited_for(published: Published) -> None:
    import os

    path = published.folder / segments.segment_file(1)
    path.unlink()
    os.mkfifo(path)
    assert "malformed" in published.kinds()


def test_uids_are_told_apart(untouched: Published) -> None:
    assert all(isinstance(uid, int) and Uid(uid) >= 1 for uid in untouched.audit().weights)
