"""A copy of what the chain says: kept fresh, never waited for, and how old it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
import structlog
from structlog.testing import LogCapture

from targon.chain import ChainUnavailable, FollowedChain, Metagraph, Neuron, SubnetInfo
from targon.chain.followed import METAGRAPH_BLOCKS
from targon.protocol.primitives import Block, Digest, Hotkey, Uid

pytestmark = pytest.mark.anyio

SOON_S = 10.0
ALICE, BOB = Hotkey("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"), Hotkey("5" + "F" * 47)


class Told:
    """A chain that says what the test has it say."""

    def __init__(self) -> None:
        self.newest = 100
        self.hotkeys = [ALICE]
        self.down = self.silent = False
        self.read = 0

    async def info(self) -> SubnetInfo:
        return SubnetInfo(4, Digest("ab" * 32), 12.0, 360, 0, 0)

    async def block_hash(self, block: Block) -> Digest:
        if block > self.newest:
            raise ChainUnavailable("no such block yet")
        return Digest(f"{block:064x}")

    async def blocks(self) -> AsyncGenerator[Block, None]:
        last = -1
        while True:
            if self.newest > last:
                last = self.newest
                yield Block(last)
            await anyio.sleep(0.002)

    async def metagraph(self) -> Metagraph:
        self.read += 1
        if self.silent:
            await anyio.sleep_forever()
        if self.down:
            raise ChainUnavailable("the node is down")
        neurons = (
            Neuron(Uid(uid), hotkey, 1.0, True, None, Block(1), None, 0.0, 0.0)
            for uid, hotkey in enumerate(self.hotkeys)
        )
        return Metagraph(4, Block(self.newest), tuple(neurons))


class World:
    def __init__(self) -> None:
        self.chain = Told()
        self.now_s = 50.0
        self.log = LogCapture()
        log = structlog.wrap_logger(structlog.PrintLogger(), processors=[self.log])
        self.copy = FollowedChain(self.chain, lambda: self.now_s, log)  # type: ignore[arg-type]  # what is asked of one

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[FollowedChain]:
        await self.copy.open()
        with anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.copy.run)
                yield self.copy
                tasks.cancel_scope.cancel()


async def test_before_it_is_opened_it_knows_nothing() -> None:
    copy = World().copy
    with pytest.raises(RuntimeError, match="not opened"):
        _ = copy.info
    assert (copy.head, copy.registered, copy.by_hotkey(ALICE)) == (0, frozenset(), None)
    assert copy.age_s == float("inf")


async def test_blocks_are_heard_of_one_after_the_other() -> None:
    world = World()
    async with world.followed() as copy:
        assert (copy.info.netuid, copy.head) == (4, 100)
        world.chain.newest = 101
        assert await copy.next_block(Block(100)) == 101
        assert await copy.next_block(Block(7)) == 101, "one that is here already"
        assert await copy.block_hash(Block(101)) == f"{101:064x}"
        with pytest.raises(ChainUnavailable):
            await copy.block_hash(Block(102))


async def test_the_metagraph_is_read_anew_every_few_blocks() -> None:
    world = World()
    async with world.followed() as copy:
        world.chain.hotkeys.append(BOB)
        for _ in range(METAGRAPH_BLOCKS - 1):
            world.chain.newest += 1
            await copy.next_block(Block(world.chain.newest - 1))
        assert (world.chain.read, set(copy.registered)) == (1, {ALICE})
        world.chain.newest += 1
        await copy.next_metagraph()
        assert (world.chain.read, set(copy.registered)) == (2, {ALICE, BOB})
        bob = copy.by_hotkey(BOB)
        assert bob is not None
        assert bob.uid == 1


async def test_an_outage_is_said_once_and_the_copy_grows_old_meanwhile() -> None:
    world = World()
    async with world.followed() as copy:
        world.chain.down = True
        world.now_s += 30.0
        for _ in range(3):
            world.chain.newest += METAGRAPH_BLOCKS
            await copy.next_block(Block(world.chain.newest - 1))
        assert (copy.age_s, copy.silence_s) == (30.0, 0.0)
        assert copy.registered == {ALICE}, "as it was seen last"
        world.chain.down = False
        world.chain.newest += 1
        await copy.next_metagraph()
        assert copy.age_s == 0.0
        world.now_s += 7.0
        assert copy.silence_s == 7.0
    assert [entry["event"] for entry in world.log.entries] == ["chain_does_not_answer"]


async def test_a_chain_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.chain.silent = True
    monkeypatch.setattr("targon.chain.followed.CALL_TIMEOUT_S", 0.05)
    with anyio.fail_after(SOON_S), pytest.raises(ChainUnavailable, match="no answer within"):
        await world.copy.open()
