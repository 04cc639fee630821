"""Redis dies, comes back, loses what it had not flushed, answers late or not at all: no event is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import anyio
import pytest
from structlog.testing import capture_logs

from targon.ledger import CorruptLog, Head, LogUnavailable, Record, replay
from targon.ledger.port import EMPTY, Log
from targon.ledger.redis import RedisLog, schema, session
from tests.ledger.history import ALICE, History, step_closed
from tests.ledger.proxy import proxy
from tests.ledger.redis_server import RedisServer
from tests.ledger.worlds import RedisWorld
from tests.ledger.writer_process import kill, lines, writer

pytestmark = pytest.mark.anyio

BEGUN = History.begun(ALICE).events
SOON_S = 60.0
"""A disk that is slow to say that something is on it keeps Redis waiting."""


async def everything(log: Log) -> list[Record]:
    return [record async for record in log.read()]


async def append_one_by_one(log: Log, blocks: range, records: Sequence[Record] = ()) -> list[Record]:
    """What the log holds after a step was closed for each block."""
    written = list(records) or await log.append(BEGUN, expected=EMPTY)
    for block in blocks:
        last = written[-1]
        written += await log.append([step_closed(block)], expected=Head(last.seq, last.hash))
    return written


def head_of(records: Sequence[Record]) -> Head:
    return Head(records[-1].seq, records[-1].hash)


def cut_power(server: RedisServer, lost: int) -> None:
    """End Redis as a power cut does: the last bytes of its append-only file never reached the disk."""
    server.kill()
    file = server.append_only_file
    os.truncate(file, max(0, file.stat().st_size - lost))
    server.start()


def head_in(server: RedisServer) -> int:
    """The newest record that Redis has; 0 while it has none, too."""
    return int(server.command("HGET", schema.HEAD, "seq") or 0)


async def reached(server: RedisServer, seq: int) -> None:
    with anyio.fail_after(SOON_S):
        while head_in(server) < seq:
            await anyio.sleep(0.05)


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
async def test_every_acknowledged_event_is_there_once_after_redis_is_killed_again_and_again(
    own_redis: RedisServer, appendfsync: str
) -> None:
    own_redis.command("CONFIG", "SET", "appendfsync", appendfsync)
    world = RedisWorld(own_redis.address)
    own_redis.configure(f"appendfsync {appendfsync}")
    with writer(world) as process:
        said = lines(process, 20)
        for appends in (1, 30, 77):
            before = head_in(own_redis)
            own_redis.kill()
            own_redis.start()
            said += lines(process, appends)
            # Those may have waited in the pipe since before the kill. A writer that is killed before it has put back
            # what Redis had not written yet dies together with Redis: it has where the head is well beyond.
            await reached(own_redis, before + 300)
        said += kill(process)
    async with world.open() as log:
        records = await everything(log)
        await replay(log)  # refuses a verdict that stands there twice
    assert [record.seq for record in records] == list(range(len(records)))
    assert all(records[head.seq].hash == head.hash for head in said)


async def test_what_a_power_cut_took_from_redis_is_put_back_before_the_next_event(
    own_redis: RedisServer,
) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(30))
        with capture_logs() as logs:
            cut_power(own_redis, 3_333)
            records = await append_one_by_one(log, range(30, 32), records)
        assert await everything(log) == records
    (lost,) = [entry for entry in logs if entry["event"] == "redis_lost_records"]
    assert 3 < lost["first"] < lost["last"] == 32


async def test_a_batch_cut_in_half_is_put_back_whole(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(3))
        records += await log.append([step_closed(n) for n in range(3, 90)], expected=head_of(records))
        cut_power(own_redis, 5_000)
        assert head_in(own_redis) == 5, "all of a batch, or none"
        assert await log.head() == head_of(records)
        assert await everything(log) == records


async def test_a_verifier_that_has_nothing_to_write_puts_back_what_was_lost_too(
    own_redis: RedisServer,
) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(30))
        cut_power(own_redis, 3_333)
        await reached(own_redis, records[-1].seq)
    async with RedisLog.open(own_redis.address, read_only=True) as log:
        assert await everything(log) == records


async def test_a_log_that_redis_lost_whole_is_put_back_whole(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(10))
        cut_power(own_redis, 1 << 30)
        assert own_redis.command("DBSIZE") == 0
        records = await append_one_by_one(log, range(10, 12), records)
        assert await everything(log) == records


async def test_more_lost_records_than_are_held_are_named(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(30))
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(30, 32), records)
        cut_power(own_redis, 6_000)
        lost = head_in(own_redis) + 1
        with pytest.raises(
            CorruptLog, match=rf"^record {lost}: Redis lost it, .*after record 32; .* record 34"
        ):
            await append_one_by_one(log, range(32, 33), records)
        with pytest.raises(CorruptLog, match="Redis lost it"):
            await log.head()


async def test_a_log_that_is_gone_and_not_held_is_not_begun_anew(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(3))
    async with RedisLog.open(own_redis.address) as log:
        own_redis.command("FLUSHALL")
        with pytest.raises(
            LogUnavailable, match="holds no log now, expected the one that this verifier wrote"
        ):
            await append_one_by_one(log, range(3, 4), records)
        assert own_redis.command("DBSIZE") == 0


async def test_another_log_in_its_place_is_not_written_to(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(3))
        own_redis.command("DEL", schema.LEASE)
        own_redis.command("HSET", schema.ABOUT, "identity", "another", "writer", "another")
        with pytest.raises(LogUnavailable, match="holds another log now"):
            await append_one_by_one(log, range(3, 4), records)


async def test_an_append_whose_answer_got_lost_is_not_sent_twice(own_redis: RedisServer) -> None:
    async with proxy(own_redis.address) as between, RedisLog.open(between.address) as log:
        records = await append_one_by_one(log, range(3))
        between.losing_answers_to = b'"block":3'
        records = await append_one_by_one(log, range(3, 6), records)
        assert between.lost == 1
        assert await everything(log) == records
        assert len(records) == len(BEGUN) + 6


async def test_an_append_that_was_given_up_half_way_is_found_and_not_doubled(own_redis: RedisServer) -> None:
    async with proxy(own_redis.address) as between, RedisLog.open(between.address) as log:
        records = await append_one_by_one(log, range(3))
        between.holding_back.clear()
        with anyio.move_on_after(0.3) as given_up:
            await append_one_by_one(log, range(3, 4), records)
        assert given_up.cancelled_caught
        between.holding_back.set()
        records = await append_one_by_one(log, range(3, 5), records)
        assert await everything(log) == records


async def test_a_redis_that_stays_away_is_given_up_with_what_to_look_at(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RETRY_S", 1.0)
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(3))
        own_redis.kill()
        with pytest.raises(
            LogUnavailable, match=r"cannot write the log redis://.*, tried for 1 s: no connection"
        ):
            await append_one_by_one(log, range(3, 4), records)
        own_redis.start()
        records = await append_one_by_one(log, range(3, 4), records)
        assert await everything(log) == records


async def test_a_redis_that_stands_still_for_a_while_is_waited_for(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log, anyio.create_task_group() as tasks:
        records = await append_one_by_one(log, range(3))
        own_redis.send(signal.SIGSTOP)

        async def wake() -> None:
            await anyio.sleep(1.5)
            own_redis.send(signal.SIGCONT)

        tasks.start_soon(wake)
        records = await append_one_by_one(log, range(3, 5), records)
        assert await everything(log) == records


async def test_a_redis_that_is_loading_is_waited_for(own_redis: RedisServer) -> None:
    async with RedisLog.open(own_redis.address) as log:
        records = await append_one_by_one(log, range(3))
    own_redis.command("CONFIG", "SET", "rdbcompression", "no")
    for number in range(100):
        own_redis.command("SET", f"large {number}", "x" * 200_000, index=1)
    own_redis.command("BGREWRITEAOF")
    while own_redis.command("INFO", "persistence")["aof_rewrite_in_progress"]:
        await anyio.sleep(0.05)
    own_redis.configure("key-load-delay 30000")
    own_redis.kill()
    own_redis.start(loaded=False)
    with capture_logs() as logs:
        async with RedisLog.open(own_redis.address) as log:
            assert await everything(log) == records
    assert [entry["problem"] for entry in logs if entry["event"] == "redis_away"] == [
        "Redis is loading its data (Redis is loading the dataset in memory)"
    ]
