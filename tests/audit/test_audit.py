"""An untouched log audits to exactly nothing; whatever is done to it is found, and called by its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.written_log import Life
from targon.audit import Unreadable
from targon.protocol import segments
from targon.protocol.primitives import Uid
from tests.audit.world import OTHER, Published, a_life, index_of


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
        monkeypatch.setattr("targon.audit.beside.BESIDE_FROM", 0)
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
