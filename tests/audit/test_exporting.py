"""What is released of a log is written as segments: once, whole, and at the same places by everybody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from targon.audit import Exporter, ExportRefused
from targon.ledger import Event, Head, Log, LogOpened
from targon.protocol import segments
from targon.protocol.primitives import Hotkey
from targon.protocol.records import LogLine
from targon.protocol.segments import SegmentManifest
from tests.audit.world import OTHER, VERIFIER, a_log, files_of, index_of
from tests.ledger.history import ALICE, History, log_opened, step_closed

pytestmark = pytest.mark.anyio


def opened() -> LogOpened:
    return log_opened().model_copy(update={"verifier": Hotkey(VERIFIER.ss58_address)})


def life(intervals: int = 3, blocks: int = 4) -> list[Event]:
    """A log of some intervals, of which the last is open."""
    history = History.begun(ALICE)
    block = 0
    for interval in range(intervals):
        for _ in range(blocks):
            block += 1
            history.step(block, (ALICE, "pass"))
        history.turn(interval, block)
    return [opened(), *history.events[1:]]


def openings(events: list[Event]) -> list[int]:
    return [seq for seq, event in enumerate(events) if event.kind == "interval_opened"]


def manifests(folder: Path) -> list[SegmentManifest]:
    count = index_of(folder).segments
    return [
        SegmentManifest.from_bytes((folder / segments.manifest_file(number)).read_bytes())
        for number in range(count)
    ]


async def lines_of(log: Log) -> list[LogLine]:
    return [line async for line in log.read_lines()]


async def test_segments_hold_the_stored_bytes_and_end_before_each_interval(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        lines = await lines_of(log)
        index = await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])
    cuts = [0, *openings(events)]
    assert (index.segments, index.records) == (len(cuts) - 1, cuts[-1])
    for number, (first, end) in enumerate(pairwise(cuts)):
        content = (tmp_path / "out" / segments.segment_file(number)).read_bytes()
        assert content == b"".join(line.to_bytes() + b"\n" for line in lines[first:end])


async def test_each_segment_has_a_manifest_that_follows_the_one_before(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        index = await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])
        lines = await lines_of(log)
    before = None
    for manifest in manifests(tmp_path / "out"):
        segments.check(manifest, before)
        before = manifest.body
        content = (tmp_path / "out" / segments.segment_file(before.number)).read_bytes()
        assert (before.content, before.size) == (hashlib.sha256(content).hexdigest(), len(content))
        assert before.head == lines[before.last].hash
    assert before is not None
    assert (index.head, index.records) == (before.head, before.last + 1)


async def test_whoever_exports_a_log_gets_the_same_segments(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "at once", log, VERIFIER).export(opened(), openings(events)[-1])
        for released in range(openings(events)[-1] + 1):
            await Exporter(tmp_path / "by and by", log, VERIFIER).export(opened(), released)
    assert files_of(tmp_path / "at once") == files_of(tmp_path / "by and by")


async def test_what_is_not_released_whole_waits(tmp_path: Path) -> None:
    events = life()
    first, second, *_ = openings(events)
    async with a_log(tmp_path / "log.sqlite", events) as log:
        exporter = Exporter(tmp_path / "out", log, VERIFIER)
        assert (await exporter.export(opened(), first - 1)).segments == 0
        assert (await exporter.export(opened(), first)).segments == 1
        assert (await exporter.export(opened(), second - 1)).segments == 1
        assert (await exporter.export(opened(), second)).segments == 2
        assert index_of(tmp_path / "out").segments == 2
        assert not list((tmp_path / "out").glob("*.part"))


async def test_a_segment_that_is_written_stays_as_it_is(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[1])
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name: after[name] for name in before if name != "index.json"} == {
        name: content for name, content in before.items() if name != "index.json"
    }
    assert len(after) > len(before)


async def test_what_an_interruption_left_is_written_again(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "whole", log, VERIFIER).export(opened(), openings(events)[-1])
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[0])
        (tmp_path / "out" / (segments.segment_file(1) + ".part")).write_bytes(b"half a li")
        (tmp_path / "out" / segments.segment_file(1)).write_bytes(b"whole, but without its manifest")
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


async def test_a_segment_ends_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targon.protocol.segments.MAX_SEGMENT_RECORDS", 5)
    events = life(intervals=2)
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])
    sizes = [each.body.last - each.body.first + 1 for each in manifests(tmp_path / "out")]
    expected = []
    for first, end in zip([0, *openings(events)], openings(events), strict=False):
        whole, rest = divmod(end - first, 5)
        expected += [5] * whole + [rest] * (rest > 0)
    assert sizes == expected


async def test_only_the_verifier_itself_exports(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log.sqlite", life()) as log:
        with pytest.raises(ExportRefused, match="expected that of the wallet's hotkey"):
            await Exporter(tmp_path / "out", log, OTHER).export(opened(), 3)
    assert not (tmp_path / "out").exists()


async def test_segments_of_another_log_are_not_continued(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[0])
    other = [*events[:1], events[1].model_copy(update={"block": 1}), *events[2:]]
    async with a_log(tmp_path / "other.sqlite", other) as log:
        with pytest.raises(ExportRefused, match="holds the segments of another log"):
            await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])
    elsewhere = opened().model_copy(update={"netuid": 5})
    async with a_log(tmp_path / "elsewhere.sqlite", [elsewhere, *events[1:]]) as log:
        with pytest.raises(ExportRefused, match="on subnet 4 of"):
            await Exporter(tmp_path / "out", log, VERIFIER).export(elsewhere, openings(events)[-1])


@pytest.mark.parametrize("name", ["index.json", "segment-00000000.json"])
async def test_damaged_segments_are_not_continued(tmp_path: Path, name: str) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[0])
        (tmp_path / "out" / name).write_bytes(b"{")
        with pytest.raises(ExportRefused, match=f"{name} is damaged"):
            await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), openings(events)[-1])


class Answers:
    def lines(self, first: int, last: int) -> Iterable[bytes]:
        return [b'{"attempt":%d}' % number for number in (4, 7, 9) if first <= number <= last]


async def test_answers_are_published_with_the_segment_of_their_attempts(tmp_path: Path) -> None:
    events = life()
    async with a_log(tmp_path / "log.sqlite", events) as log:
        await Exporter(tmp_path / "out", log, VERIFIER, Answers()).export(opened(), openings(events)[-1])
    published = []
    for manifest in manifests(tmp_path / "out"):
        path = tmp_path / "out" / segments.transcripts_file(manifest.body.number)
        assert (manifest.body.transcripts is not None) == path.exists()
        if path.exists():
            assert manifest.body.transcripts == hashlib.sha256(path.read_bytes()).hexdigest()
            published += path.read_bytes().splitlines()
    assert published == [b'{"attempt":4}', b'{"attempt":7}', b'{"attempt":9}']


async def test_a_log_that_has_only_begun_has_an_index_and_nothing_else(tmp_path: Path) -> None:
    async with a_log(tmp_path / "log.sqlite", life()[:1]) as log:
        index = await Exporter(tmp_path / "out", log, VERIFIER).export(opened(), 0)
        assert index == index_of(tmp_path / "out")
        assert index.segments == 0
        await log.append([step_closed(9)], expected=await log.head())
        assert isinstance(await log.head(), Head)
