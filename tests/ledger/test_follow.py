"""Groups of consumers that share a log, and lose members."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import anyio
import pytest

from targon.ledger import CorruptLog, Head, Record
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisAddress, RedisLog, follow
from targon.ledger.redis.schema import RECORDS
from tests.ledger.follower import GROUP
from tests.ledger.history import ALICE, History, step_closed
from tests.ledger.redis_server import RedisServer
from tests.ledger.test_redis_corruption import ALTERATIONS
from tests.ledger.worlds import RedisWorld

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
EVENTS = [*History.begun(ALICE).events, *(step_closed(block) for block in range(400))]
LONG_S = 30.0


@contextmanager
def consumer(address: RedisAddress, name: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.ledger.follower", name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(RedisWorld(address).told() + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def seqs(text: str) -> list[int]:
    return [int(line.split()[0]) for line in text.splitlines(keepends=True) if line.endswith("\n")]


async def write(redis: RedisServer, count: int) -> list[Record]:
    async with RedisLog.open(redis.address) as log:
        return await log.append(EVENTS[:count], expected=EMPTY)


async def take(address: RedisAddress, name: str, count: int, *, claim_after_s: float = 30.0) -> list[Record]:
    """The next records of a consumer; it stops while it deals with the last."""
    found = []
    with anyio.fail_after(LONG_S):
        async with aclosing(follow(address, GROUP, name, claim_after_s=claim_after_s)) as records:
            async for record in records:
                found.append(record)
                if len(found) == count:
                    break
    return found


def pending(redis: RedisServer) -> int:
    return int(redis.command("XPENDING", RECORDS, GROUP)["pending"])


async def test_a_log_is_followed_from_its_first_record_on_in_order(empty_redis: RedisServer) -> None:
    records = await write(empty_redis, 100)
    assert await take(empty_redis.address, "one", 100) == records


async def test_what_is_appended_later_comes_as_it_is_appended(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        records = await log.append(EVENTS[:3], expected=EMPTY)
        seen: list[Record] = []

        async def look() -> None:
            seen.extend(await take(empty_redis.address, "one", 5))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await anyio.sleep(1.5)
            records += await log.append(EVENTS[3:5], expected=Head(records[-1].seq, records[-1].hash))
    assert seen == records


async def test_an_empty_log_can_be_followed_before_anything_is_written(empty_redis: RedisServer) -> None:
    async with RedisLog.open(empty_redis.address) as log:
        with anyio.move_on_after(0.3):
            await take(empty_redis.address, "one", 1)
        records = await log.append(EVENTS[:3], expected=EMPTY)
    assert await take(empty_redis.address, "one", 3) == records


async def test_a_record_is_done_when_the_next_is_asked_for(empty_redis: RedisServer) -> None:
    records = await write(empty_redis, 10)
    assert (await take(empty_redis.address, "one", 4))[-1] == records[3]
    assert await take(empty_redis.address, "one", 2) == records[3:5]


async def test_groups_see_everything_each_and_consumers_of_a_group_share(empty_redis: RedisServer) -> None:
    records = await write(empty_redis, 64)
    first = await take(empty_redis.address, "one", 32)
    second = await take(empty_redis.address, "two", 32)
    assert first + second == records
    async with aclosing(follow(empty_redis.address, "another group", "one")) as other:
        assert await anext(other) == records[0]


async def test_what_a_consumer_left_is_taken_over_by_another(empty_redis: RedisServer) -> None:
    records = await write(empty_redis, 40)
    assert await take(empty_redis.address, "one", 3) == records[:3]
    await anyio.sleep(0.3)
    seen = await take(empty_redis.address, "two", 38, claim_after_s=0.2)
    assert {record.seq for record in seen} == set(range(2, 40))
    assert pending(empty_redis) == 1, "the one that two was dealing with when it stopped"


async def test_a_group_whose_member_is_killed_sees_every_record(empty_redis: RedisServer) -> None:
    records = await write(empty_redis, 403)
    wanted = {record.seq for record in records}
    with consumer(empty_redis.address, "one") as one, consumer(empty_redis.address, "two") as two:
        assert one.stdout is not None
        assert two.stdout is not None
        first = [int(one.stdout.readline().split()[0]) for _ in range(40)]
        one.kill()
        rest, _ = one.communicate()
        first += seqs(rest)
        second: list[int] = []
        while wanted - set(first) - set(second):
            second += seqs(await anyio.to_thread.run_sync(two.stdout.readline))
    assert first == sorted(first)
    assert len(first) < len(records)


async def test_a_consumer_goes_on_after_redis_was_killed(own_redis: RedisServer) -> None:
    records = await write(own_redis, 100)
    seen = []
    async with aclosing(follow(own_redis.address, GROUP, "one")) as following:
        async for record in following:
            seen.append(record.seq)
            if record.seq == 50:
                own_redis.kill()
                own_redis.start()
            if record.seq == records[-1].seq:
                break
    assert set(seen) == set(range(100))


async def test_a_group_that_somebody_removed_begins_again(empty_redis: RedisServer) -> None:
    records = await write(empty_redis, 10)
    async with aclosing(follow(empty_redis.address, GROUP, "one")) as following:
        for expected in records:
            assert await anext(following) == expected
        empty_redis.command("XGROUP", "DESTROY", RECORDS, GROUP)
        assert await anext(following) == records[0]


async def test_a_record_that_was_altered_is_not_handed_out(empty_redis: RedisServer) -> None:
    await write(empty_redis, 10)
    ALTERATIONS["another event"](empty_redis, 5)
    with pytest.raises(CorruptLog, match=r"^record 5: its content is not what its hash"):
        await take(empty_redis.address, "one", 10)
