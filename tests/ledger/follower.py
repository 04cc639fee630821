"""A process that follows a log as one consumer of a group, and says each record when it has dealt with it.

test_follow.py runs some, and kills one. It is told its consumer's name as an argument, and on its first line
of input where the log is.
"""

from __future__ import annotations

import sys
from contextlib import aclosing

import anyio

from targon.ledger.redis import follow
from tests.ledger.worlds import RedisWorld, world_of

GROUP = "gateways"
CLAIM_AFTER_S = 1.0
WORK_S = 0.002


async def main(consumer: str, world: RedisWorld) -> None:
    async with aclosing(follow(world.address, GROUP, consumer, claim_after_s=CLAIM_AFTER_S)) as records:
        async for record in records:
            await anyio.sleep(WORK_S)
            sys.stdout.write(f"{record.seq} {record.hash}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    world = world_of(sys.stdin.readline())
    assert isinstance(world, RedisWorld)
    anyio.run(main, sys.argv[1], world)
