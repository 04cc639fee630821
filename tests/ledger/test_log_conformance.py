"""What every adapter of the log port must do; see worlds.py for the adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from targon.ledger import (
    GENESIS_HASH,
    CorruptLog,
    Event,
    Head,
    HeadMoved,
    InvalidHistory,
    Log,
    LogUnavailable,
    Record,
    Snapshot,
    SqliteLog,
    StepClosed,
    WeightsSet,
    catch_up,
    record_hash,
    replay,
)
from targon.ledger.port import EMPTY, chained
from targon.protocol.canonical import canonical_bytes, digest
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Block, Uid
from targon.protocol.records import LogLine
from tests.ledger.history import ALICE, BOB, History, folded, step_closed, verdict
from tests.ledger.worlds import World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(world: World) -> AsyncIterator[Log]:
    async with world.open() as log:
        yield log


def story() -> list[Event]:
    history = History.begun(ALICE, BOB)
    for block in range(1, 9):
        history.step(block, (ALICE, "pass"), (BOB, "fail"))
    return history.turn(0, 10).events


async def everything(log: Log, start: int = 0, stop: int | None = None) -> list[Record]:
    return [record async for record in log.read(start, stop)]


async def test_a_new_log_is_empty(log: Log) -> None:
    assert await log.head() == EMPTY
    assert await everything(log) == []
    assert await log.latest_snapshot() is None


async def test_what_was_appended_is_read_back_in_order(log: Log) -> None:
    events = story()
    records = await log.append(events, expected=EMPTY)
    assert [record.event for record in records] == events
    assert await everything(log) == records
    assert await log.head() == Head(records[-1].seq, records[-1].hash)


async def test_records_are_numbered_from_zero_and_chained(log: Log) -> None:
    await log.append(story(), expected=EMPTY)
    before = GENESIS_HASH
    for seq, record in enumerate(await everything(log)):
        assert (record.seq, record.prev) == (seq, before)
        value = {"event": record.event.to_json(), "prev": record.prev, "seq": record.seq}
        assert record.hash == digest(value)
        before = record.hash


async def test_the_hash_put_together_as_text_is_that_of_the_canonical_form() -> None:
    event = verdict(7, evidence={"ü": [1.5, None], "a": 1e21})
    value = {"event": event.to_json(), "prev": GENESIS_HASH, "seq": 12}
    assert record_hash(12, GENESIS_HASH, event.to_bytes()) == digest(value)


async def test_appending_in_pieces_is_appending_at_once(log: Log, tmp_path: Path) -> None:
    events = story()
    head = EMPTY
    for event in events:
        (record,) = await log.append([event], expected=head)
        head = Head(record.seq, record.hash)
    async with aclosing(await SqliteLog.open(tmp_path / "other.sqlite3")) as other:
        assert await other.append(events, expected=EMPTY) == await everything(log)


async def test_records_that_were_chained_before_are_written_as_they_are(log: Log, tmp_path: Path) -> None:
    pairs = chained(story(), EMPTY)
    await log.write(pairs[:3])
    await log.write([])
    await log.write(pairs[3:])
    assert await everything(log) == [record for record, _ in pairs]
    assert await log.head() == Head(pairs[-1][0].seq, pairs[-1][0].hash)


async def test_records_that_were_chained_after_another_end_are_refused(log: Log) -> None:
    pairs = chained(story(), EMPTY)
    await log.write(pairs[:3])
    for late in (pairs[:2], pairs[4:]):
        with pytest.raises(HeadMoved):
            await log.write(late)
    assert await everything(log) == [record for record, _ in pairs[:3]]


async def test_a_part_can_be_read(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    assert await everything(log, 3) == records[3:]
    assert await everything(log, 3, 5) == records[3:5]
    assert await everything(log, 0, 10_000) == records
    assert await everything(log, 5, 5) == []
    assert await everything(log, 10_000) == []


async def test_the_stored_bytes_are_read_as_what_was_hashed(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    lines = [line async for line in log.read_lines()]
    assert [(line.seq, line.prev, line.hash) for line in lines] == [(r.seq, r.prev, r.hash) for r in records]
    assert [line.event for line in lines] == [record.event.to_bytes() for record in records]
    assert [LogLine.from_bytes(line.to_bytes()) for line in lines] == lines
    assert [line async for line in log.read_lines(3, 5)] == lines[3:5]


class OlderWeightsSet(WeightsSet):
    """As software wrote it before there were proposals."""

    def to_bytes(self) -> bytes:
        value = self.to_json()
        del value["proposal"]
        return canonical_bytes(value)


async def test_bytes_of_older_software_are_handed_on_as_they_are(log: Log) -> None:
    older = OlderWeightsSet(block=Block(45), version_key=0, weights=((Uid(0), 65_535),))
    await log.append([older], expected=EMPTY)
    (record,) = await everything(log)
    (line,) = [line async for line in log.read_lines()]
    assert line.event == older.to_bytes() != record.event.to_bytes()
    assert (line.hash, record.hash) == (record_hash(0, GENESIS_HASH, line.event), line.hash)


class FutureEvent(StepClosed):
    """Of a kind that is still to come."""

    def to_bytes(self) -> bytes:
        return canonical_bytes(self.to_json() | {"kind": "teleported"})


async def test_bytes_of_a_kind_that_came_after_this_software_are_handed_on(log: Log) -> None:
    await log.append([FutureEvent(block=Block(7))], expected=EMPTY)
    (line,) = [line async for line in log.read_lines()]
    assert line.event == b'{"block":7,"kind":"teleported","version":1}'
    with pytest.raises(CorruptLog, match="no event that this software knows"):
        await everything(log)


async def test_a_long_log_is_read_whole(log: Log) -> None:
    head = EMPTY
    for chunk in range(3):
        events = [step_closed(chunk * 200 + n) for n in range(200)]
        last = (await log.append(events, expected=head))[-1]
        head = Head(last.seq, last.hash)
    assert [record.seq for record in await everything(log)] == list(range(600))
    assert len(await everything(log, 0, 512)) == 512
    assert [line.seq async for line in log.read_lines(1)] == list(range(1, 600))


async def test_a_reader_that_stops_early_holds_nothing_up(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    async with aclosing(log.read()) as reading:
        async for _ in reading:
            break
    await log.append([step_closed(99)], expected=Head(records[-1].seq, records[-1].hash))


async def test_a_writer_that_believes_in_another_head_is_refused(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    with pytest.raises(HeadMoved, match="expected record -1") as error:
        await log.append([step_closed(1)], expected=EMPTY)
    assert error.value.got == (records[-1].seq, records[-1].hash)
    assert error.value.expected == (-1, GENESIS_HASH)
    assert await everything(log) == records


async def test_an_append_is_whole_or_not_at_all(log: Log) -> None:
    not_json = verdict(0, evidence={"beyond 2**53": 2**60})
    with pytest.raises(MalformedMessage):
        await log.append([step_closed(1), not_json], expected=EMPTY)
    assert await log.head() == EMPTY


async def test_appending_nothing_changes_nothing(log: Log) -> None:
    assert await log.append([], expected=EMPTY) == []
    assert await log.head() == EMPTY


async def test_concurrent_appends_never_fork(log: Log) -> None:
    refused = []

    async def try_to(block: int) -> None:
        try:
            await log.append([step_closed(block)], expected=EMPTY)
        except HeadMoved:
            refused.append(block)

    async with anyio.create_task_group() as group:
        for block in range(8):
            group.start_soon(try_to, block)
    assert len(refused) == 7
    assert len(await everything(log)) == 1


async def test_a_log_is_there_again_when_it_is_opened_again(world: World) -> None:
    async with world.open() as log:
        records = await log.append(story(), expected=EMPTY)
    async with world.open() as log:
        assert await everything(log) == records


async def test_one_log_has_one_writer(world: World, log: Log) -> None:
    await log.append(story(), expected=EMPTY)
    with pytest.raises(LogUnavailable, match="expected no other writer"):
        async with world.open():
            pass


async def test_a_log_is_read_beside_its_writer(world: World, log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    async with world.open(read_only=True) as reader:
        assert await everything(reader) == records
        more = await log.append([step_closed(99)], expected=await log.head())
        assert await everything(reader, more[0].seq) == more


async def test_a_log_that_is_not_there_cannot_be_read(world: World) -> None:
    with pytest.raises(LogUnavailable, match="there is no log at"):
        async with world.open(read_only=True):
            pass


async def test_a_log_that_was_opened_for_reading_cannot_be_written(world: World, log: Log) -> None:
    await log.append(story(), expected=EMPTY)
    async with world.open(read_only=True) as reader:
        head = await reader.head()
        with pytest.raises(LogUnavailable, match="cannot write the log"):
            await reader.append([step_closed(99)], expected=head)
        with pytest.raises(LogUnavailable, match="cannot write the log"):
            await reader.save_snapshot(Snapshot(head, b"{}"))
    assert await log.head() == head


async def test_a_closed_log_says_so(world: World) -> None:
    async with world.open() as log:
        await log.aclose()
        await log.aclose()
        with pytest.raises(LogUnavailable, match="was closed"):
            await log.head()
        with pytest.raises(LogUnavailable, match="was closed"):
            await log.append([step_closed(1)], expected=EMPTY)


async def test_an_error_of_whoever_uses_a_log_comes_out_as_it_is(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.open():
            raise ZeroDivisionError


async def test_the_newest_snapshot_is_found(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    for record in records[3:9]:
        await log.save_snapshot(Snapshot(Head(record.seq, record.hash), b'{"at":%d}' % record.seq))
    assert await log.latest_snapshot() == Snapshot(Head(8, records[8].hash), b'{"at":8}')


async def test_a_snapshot_of_another_log_is_refused(log: Log) -> None:
    await log.append(story(), expected=EMPTY)
    with pytest.raises(InvalidHistory, match="which this log does not hold"):
        await log.save_snapshot(Snapshot(Head(3, GENESIS_HASH), b"{}"))


async def test_standings_are_replayed_from_the_start_or_a_snapshot_alike(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    whole = await replay(log)
    early = folded(records[:9])
    await log.save_snapshot(Snapshot(early.head, early.to_snapshot()))
    assert (await replay(log)).to_snapshot() == whole.to_snapshot() == folded(records).to_snapshot()
    await catch_up(early, log)
    assert early.to_snapshot() == whole.to_snapshot()


async def test_a_snapshot_that_cannot_be_used_is_passed_over(log: Log) -> None:
    records = await log.append(story(), expected=EMPTY)
    head = Head(records[8].seq, records[8].hash)
    wrong_version = folded(records[:9]).to_snapshot().removesuffix(b"1}") + b"2}"
    wrong_head = folded(records[:8]).to_snapshot()
    for state in (b"{}", b"not json", wrong_version, wrong_head):
        await log.save_snapshot(Snapshot(head, state))
        assert (await replay(log)).to_snapshot() == folded(records).to_snapshot()
