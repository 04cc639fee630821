"""One writer at a time, also when processes die, stand still and come back."""

from __future__ import annotations

import json
import signal
import subprocess

import anyio
import anyio.to_thread
import pytest

from targon.ledger import Head, LogUnavailable, replay
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisLog, schema
from targon.ledger.redis.writer import LEASE_S
from tests.ledger.history import ALICE, History, step_closed
from tests.ledger.redis_server import RedisServer
from tests.ledger.worlds import RedisWorld
from tests.ledger.writer_process import kill, lines, writer

pytestmark = pytest.mark.anyio

BEGUN = History.begun(ALICE).events


async def last_words(process: subprocess.Popen[str]) -> str:
    """What a process complains of when it ends; waited for in a thread, for there may be a lease to renew."""
    _, complaint = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=30))
    return complaint


async def test_a_dead_writer_s_log_can_be_written_within_seconds(empty_redis: RedisServer) -> None:
    world = RedisWorld(empty_redis.address)
    with writer(world) as process:
        lines(process, 3)
        kill(process)
        with anyio.fail_after(LEASE_S + 25.0):
            async with world.open() as log:
                await log.append([step_closed(10_000)], expected=await log.head())


async def test_a_writer_that_stood_still_while_another_took_its_log_can_write_nothing(
    empty_redis: RedisServer,
) -> None:
    world = RedisWorld(empty_redis.address)
    with writer(world) as process:
        lines(process, 3)
        process.send_signal(signal.SIGSTOP)
        async with world.open() as log:
            head = await log.head()
            (record,) = await log.append([step_closed(10_000)], expected=head)
            process.send_signal(signal.SIGCONT)
            complaint = await last_words(process)
            assert process.returncode == 1
            assert "is being written by process" in complaint
            assert "Exception Group" not in complaint, "one error, which is what whoever appended gets"
            assert await log.head() == Head(record.seq, record.hash)


async def test_a_writer_that_stood_still_is_refused_also_when_the_other_one_has_gone(
    empty_redis: RedisServer,
) -> None:
    world = RedisWorld(empty_redis.address)
    with writer(world) as process:
        lines(process, 3)
        process.send_signal(signal.SIGSTOP)
        async with world.open() as log:
            head = await log.head()
        process.send_signal(signal.SIGCONT)
        complaint = await last_words(process)
    assert "another writer took the log" in complaint
    async with world.open(read_only=True) as log:
        assert await log.head() == head
        await replay(log)


async def test_a_lease_that_ran_out_while_nobody_came_is_taken_again(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        (*_, last) = await log.append(BEGUN, expected=EMPTY)
        empty_redis.command("DEL", schema.LEASE)
        await log.append([step_closed(1)], expected=Head(last.seq, last.hash))
        assert empty_redis.command("PTTL", schema.LEASE) > 0


async def test_the_lease_is_kept_while_there_is_nothing_to_write(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address):
        await anyio.sleep(LEASE_S + 1.0)
        assert empty_redis.command("PTTL", schema.LEASE) > 0


async def test_a_log_that_was_closed_has_no_lease(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address):
        assert json.loads(empty_redis.command("GET", schema.LEASE))["pid"] > 0
    assert empty_redis.command("EXISTS", schema.LEASE) == 0


async def test_a_lease_that_never_ends_is_somebody_s(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address):
        pass
    empty_redis.command("SET", schema.LEASE, "mine")
    with pytest.raises(
        LogUnavailable, match=r"written by somebody unknown \(targon:log:lease holds b'mine'\)"
    ):
        async with RedisLog.open(empty_redis.address):
            pass


async def test_a_snapshot_of_a_writer_that_was_replaced_is_refused(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        await log.append(BEGUN, expected=EMPTY)
        empty_redis.command("HSET", schema.ABOUT, "writer", "another")
        standings = await replay(log)
        with pytest.raises(LogUnavailable, match="another writer took the log"):
            await log.append([step_closed(1)], expected=standings.head)
