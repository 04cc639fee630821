"""Records of a log in Redis that somebody altered, took away or added are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from targon.ledger import CorruptLog, Head, HeadMoved, Record, Snapshot, chain_records, record_hash
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisLog, schema
from targon.ledger.redis.schema import HEAD, RECORDS, SNAPSHOTS, entry_id
from tests.ledger.damage import story
from tests.ledger.history import folded, step_closed
from tests.ledger.redis_server import RedisServer

pytestmark = pytest.mark.anyio

Fields = dict[bytes, bytes]


async def write(redis: RedisServer) -> list[Record]:
    async with RedisLog.open(redis.address) as log:
        return await log.append(story(), expected=EMPTY)


async def save_snapshot(redis: RedisServer, records: list[Record]) -> Snapshot:
    standings = folded(records)
    snapshot = Snapshot(standings.head, standings.to_snapshot())
    async with RedisLog.open(redis.address) as log:
        await log.save_snapshot(snapshot)
    return snapshot


async def read(redis: RedisServer, *, read_only: bool = False, start: int = 0) -> list[Record]:
    async with RedisLog.open(redis.address, read_only=read_only) as log:
        return [record async for record in log.read(start)]


def alter(redis: RedisServer, seq: int, change: Callable[[Fields], Any]) -> None:
    """Write the stream anew with one entry changed: entries can't be changed in place."""
    entries = redis.command("XRANGE", RECORDS, "-", "+")
    redis.command("DEL", RECORDS)
    for id_, fields in entries:
        if id_ == entry_id(seq).encode():
            change(fields)
        redis.command("XADD", RECORDS, id_, *(part for pair in fields.items() for part in pair))


ALTERATIONS: dict[str, Callable[[RedisServer, int], Any]] = {
    "another event": lambda redis, seq: alter(
        redis, seq, lambda fields: fields.update({b"event": fields[b"event"].replace(b"}", b" }")})
    ),
    "half its event": lambda redis, seq: alter(
        redis, seq, lambda fields: fields.update({b"event": fields[b"event"][:20]})
    ),
    "bytes that are no text": lambda redis, seq: alter(
        redis, seq, lambda fields: fields.update({b"event": b"\xff\x00\xfe"})
    ),
    "no event": lambda redis, seq: alter(redis, seq, lambda fields: fields.pop(b"event")),
    "another hash": lambda redis, seq: alter(
        redis, seq, lambda fields: fields.update({b"hash": b"\xffbeef"})
    ),
    "another predecessor": lambda redis, seq: alter(redis, seq, lambda fields: fields.update({b"prev": b""})),
    "no entry": lambda redis, seq: redis.command("XDEL", RECORDS, entry_id(seq)),
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("alteration", ALTERATIONS.values(), ids=ALTERATIONS)
async def test_a_wrong_record_is_named(
    empty_redis: RedisServer, alteration: Callable[[RedisServer, int], Any], read_only: bool
) -> None:
    last = (await write(empty_redis))[-1].seq
    alteration(empty_redis, 7)
    with pytest.raises(CorruptLog, match=rf"^record 7: .*; the log goes on to record {last}") as error:
        await read(empty_redis, read_only=read_only)
    assert error.value.seq == 7


@pytest.mark.parametrize("alteration", ALTERATIONS.values(), ids=ALTERATIONS)
async def test_a_wrong_last_record_is_named_and_stays(
    empty_redis: RedisServer, alteration: Callable[[RedisServer, int], Any]
) -> None:
    last = (await write(empty_redis))[-1].seq
    alteration(empty_redis, last)
    length = empty_redis.command("XLEN", RECORDS)
    with pytest.raises(CorruptLog, match=rf"^record {last}: "):
        await read(empty_redis)
    assert empty_redis.command("XLEN", RECORDS) == length
    assert int(empty_redis.command("HGET", HEAD, "seq")) == last


async def test_a_forged_record_with_a_hash_of_its_own_is_found_at_the_next(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    forged = chain_records([step_closed(500)], Head(6, records[6].hash))[0]
    fields = {b"event": forged.event.to_bytes(), b"hash": forged.hash.encode()}
    alter(empty_redis, 7, lambda stored: stored.update(fields))
    with pytest.raises(CorruptLog, match=r"^record 8: it follows"):
        await read(empty_redis)


async def test_records_beyond_the_logs_end_are_refused(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    empty_redis.command("HSET", HEAD, "seq", records[-3].seq, "hash", records[-3].hash)
    with pytest.raises(CorruptLog, match="stands beyond the log's end"):
        await read(empty_redis)


async def test_an_end_that_is_noted_wrongly_is_refused(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    empty_redis.command("HSET", HEAD, "hash", "00" * 32)
    with pytest.raises(CorruptLog, match=f"^record {records[-1].seq}: the log's end is noted as 000000"):
        await read(empty_redis)


async def test_an_end_that_is_no_number_is_refused(empty_redis: RedisServer) -> None:
    await write(empty_redis)
    empty_redis.command("HSET", HEAD, "seq", "the last")
    with pytest.raises(CorruptLog, match="the log's end is noted as record b'the last', expected a number"):
        await read(empty_redis)


async def test_an_end_that_is_not_noted_is_refused(empty_redis: RedisServer) -> None:
    await write(empty_redis)
    empty_redis.command("DEL", HEAD)
    with pytest.raises(CorruptLog, match="the log's end is not noted"):
        await read(empty_redis)


async def test_an_entry_that_is_no_record_is_named(empty_redis: RedisServer) -> None:
    last = (await write(empty_redis))[-1].seq
    empty_redis.command("XADD", RECORDS, f"{last + 1}-5", "hello", "world")
    with pytest.raises(CorruptLog, match=rf"before it stands entry {last + 1}-5 of the stream"):
        await read(empty_redis)


async def test_history_before_a_snapshot_is_checked_when_it_is_read(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    await save_snapshot(empty_redis, records)
    ALTERATIONS["half its event"](empty_redis, 3)
    assert await read(empty_redis, start=10) == records[10:]
    with pytest.raises(CorruptLog, match=r"^record 3: "):
        await read(empty_redis)


@pytest.mark.parametrize("start", [0, 4])
async def test_a_gap_before_a_snapshot_is_found_when_it_is_read(empty_redis: RedisServer, start: int) -> None:
    await save_snapshot(empty_redis, await write(empty_redis))
    empty_redis.command("XDEL", RECORDS, entry_id(3))
    with pytest.raises(CorruptLog, match=r"^record 3: it is missing"):
        await read(empty_redis, start=start)


async def test_a_gap_where_checking_begins_is_found(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    await save_snapshot(empty_redis, records)
    empty_redis.command("XDEL", RECORDS, entry_id(records[-2].seq))
    with pytest.raises(CorruptLog, match=f"^record {records[-2].seq}: it is missing"):
        await read(empty_redis)


async def test_a_tail_that_goes_missing_under_an_open_log_is_found(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    async with RedisLog.open(empty_redis.address, read_only=True) as log:
        for record in records[6:]:
            empty_redis.command("XDEL", RECORDS, entry_id(record.seq))
        with pytest.raises(CorruptLog, match=f"^record 6: it is missing: .* record {records[-1].seq}"):
            _ = [record async for record in log.read()]


async def test_a_whole_record_that_is_no_event_is_named(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        await log.append(story()[:1], expected=EMPTY)
    hash_ = record_hash(0, EMPTY.hash, b"{}")
    alter(empty_redis, 0, lambda fields: fields.update({b"event": b"{}", b"hash": hash_.encode()}))
    empty_redis.command("HSET", HEAD, "hash", hash_)
    with pytest.raises(CorruptLog, match=r"^record 0: it is whole, but no event that this software knows"):
        await read(empty_redis)


async def test_what_somebody_else_wrote_under_a_writer_is_refused(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        records = await log.append(story(), expected=EMPTY)
        head = Head(records[-1].seq, records[-1].hash)
        (forged,) = chain_records([step_closed(500)], head)
        event = forged.event.to_bytes()
        empty_redis.command(
            *("XADD", RECORDS, entry_id(forged.seq), "prev", forged.prev, "hash", forged.hash, "event", event)
        )
        empty_redis.command("HSET", HEAD, "seq", forged.seq, "hash", forged.hash)
        with pytest.raises(HeadMoved, match="is another verifier writing to it"):
            await log.append([step_closed(501)], expected=head)
        with pytest.raises(HeadMoved, match="is another verifier writing to it"):
            await log.head()


async def test_a_damaged_snapshot_is_passed_over(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    good = await save_snapshot(empty_redis, records[:9])
    await save_snapshot(empty_redis, records)
    seq = records[-1].seq
    value = empty_redis.command("HGET", SNAPSHOTS, seq)
    empty_redis.command("HSET", SNAPSHOTS, seq, value[:-1] + b" ")
    with capture_logs() as logs:
        async with RedisLog.open(empty_redis.address) as log:
            assert await log.latest_snapshot() == good
    assert {entry["event"] for entry in logs if entry["log_level"] == "warning"} == {"snapshot_damaged"}


async def test_three_snapshots_are_kept(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    for count in (5, 12, 9, 10, 11):
        await save_snapshot(empty_redis, records[:count])
    kept = sorted(int(seq) for seq in empty_redis.command("HKEYS", schema.SNAPSHOTS))
    assert kept == [9, 10, 11]


async def test_a_snapshot_beyond_the_end_is_passed_over(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    good = await save_snapshot(empty_redis, records[:9])
    value = empty_redis.command("HGET", SNAPSHOTS, 8)
    empty_redis.command("HSET", SNAPSHOTS, 99, value, "the newest", value)
    async with RedisLog.open(empty_redis.address, read_only=True) as log:
        assert await log.latest_snapshot() == good


async def test_a_log_can_be_read_with_other_tools(empty_redis: RedisServer) -> None:
    records = await write(empty_redis)
    entries = empty_redis.command("XRANGE", RECORDS, "-", "+")
    assert [fields[b"hash"].decode() for _, fields in entries] == [record.hash for record in records]
    assert [id_.decode() for id_, _ in entries] == [f"{record.seq + 1}-0" for record in records]
