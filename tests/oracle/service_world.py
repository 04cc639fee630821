"""A small world for a running oracle's tests: a chain that does as it is told, a supply without end, real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.chain import Axon, ChainUnavailable, Metagraph, Neuron, SubnetInfo, UnknownBlock
from targon.engines import Engine
from targon.oracle import Passage
from targon.oracle.periods import PeriodFolder
from targon.oracle.ports import Filled, Supply, Written
from targon.oracle.role import Oracle
from targon.oracle.settings import OracleSettings
from targon.oracle.writing import PeriodWork
from targon.protocol.primitives import Block, Digest, Hotkey, Uid
from targon.protocol.private_inputs import Commitment, PrivateInput
from targon.transport.auth import sign
from tests.transport.world import Reply, head, send_raw

ORACLE = Keypair.create_from_uri("//Oracle")
ALICE = Keypair.create_from_uri("//Alice")
BOB = Keypair.create_from_uri("//Bob")
LATE = Keypair.create_from_uri("//Late")
"""Has a UID; gets a permit where a test gives it one."""
STRANGER = Keypair.create_from_uri("//Stranger")

GENESIS = Digest("ab" * 32)
NETUID = 4
WAIT_S = 60.0


def key(pair: Keypair) -> Hotkey:
    return Hotkey(pair.ss58_address)


def hash_of(block: int) -> Digest:
    return Digest(f"{block:064x}")


class ToldChain:
    """A chain that does as it is told. Only what an oracle asks of one."""

    def __init__(self, *, block_seconds: float = 12.0) -> None:
        self.head = 100
        self.heard = -1
        """The newest block that whoever follows the chain has taken in."""
        self.down = False
        self.hashless = 0
        """How often it doesn't tell a block's hash."""
        self.permits = {key(ALICE), key(BOB)}
        self.uids = [key(ALICE), key(BOB), key(LATE)]
        self.hashes: dict[int, Digest] = {}
        self._info = SubnetInfo(NETUID, GENESIS, block_seconds, 360, 0, 0)

    async def _answer(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.down:
            raise ChainUnavailable("the chain is down")

    async def info(self) -> SubnetInfo:
        await self._answer()
        return self._info

    async def block(self) -> Block:
        await self._answer()
        return Block(self.head)

    async def block_hash(self, block: Block) -> Digest:
        await self._answer()
        if self.hashless:
            self.hashless -= 1
            raise ChainUnavailable("that node has no such block yet")
        if block > self.head:
            raise UnknownBlock(block, Block(self.head))
        return self.hashes.get(block, hash_of(block))

    async def blocks(self) -> AsyncGenerator[Block, None]:
        last = -1
        while True:
            if self.head > last and not self.down:
                last = self.head
                yield Block(last)
                self.heard = last
            await anyio.sleep(0.002)

    def passes(self, blocks: int) -> None:
        """Let blocks pass while something takes long, in a thread of its own; until they were seen."""
        self.head += blocks
        until = time.monotonic() + WAIT_S
        while self.heard < self.head:
            assert time.monotonic() < until, f"block {self.head} was not seen"
            time.sleep(0.005)

    async def metagraph(self) -> Metagraph:
        await self._answer()
        return Metagraph(NETUID, Block(self.head), tuple(map(self._neuron, range(len(self.uids)))))

    async def serve_axon(self, signer: object, axon: Axon) -> None:
        raise AssertionError("an oracle is not announced: verifiers would take it for a prover")

    async def aclose(self) -> None:
        return

    def _neuron(self, uid: int) -> Neuron:
        hotkey = self.uids[uid]
        permit = hotkey in self.permits
        return Neuron(Uid(uid), hotkey, 1.0, permit, None, Block(1), None, 0.0, 0.0)


@dataclass
class ToldSupply:
    """Passages without end, or as many as there are."""

    left: int = 1 << 40
    at_once: int = 1 << 40
    """As many as it gives in one block: what is new on a few pages, say."""
    number: int = 0
    error: Exception | None = None
    calls: list[int] = field(default_factory=list)

    def manifest(self) -> Digest:
        return Digest("cd" * 32)

    def take(self, count: int) -> Sequence[Passage]:
        self.calls.append(count)
        if self.error is not None:
            raise self.error
        count = min(count, self.left, self.at_once)
        self.left -= count
        made = [
            Passage(f"Passage {number} is like no other, whatever it says.", f"book.txt at {number}", number)
            for number in range(self.number, self.number + count)
        ]
        self.number += count
        return made


class Followers:
    """Notes after which block each of those waits for a next one who do something in each."""

    def __init__(self, oracle: Oracle) -> None:
        self._view = oracle._view
        self._next_block = self._view.next_block
        self._view.next_block = self._noted  # type: ignore[method-assign]
        self._waiting: list[Block] = []

    async def _noted(self, after: Block) -> Block:
        self._waiting.append(after)
        try:
            return await self._next_block(after)
        finally:
            self._waiting.remove(after)

    def are_done(self, head: int) -> bool:
        """Whether whoever prepares periods and whoever takes turns have done all that they do in a block."""
        return self._waiting == [head, head]


class HereWriter:
    """The port ``PeriodWriter`` in a thread of this process, for supplies that a test holds in its hand."""

    def __init__(self, supply: Supply, folder: Path) -> None:
        self._work = PeriodWork(supply, PeriodFolder(folder / "periods"))

    async def fill(self, count: int) -> Filled:
        taken = await anyio.to_thread.run_sync(lambda: sum(self._work.fill(count)))
        return Filled(self._work.held, taken)

    async def write(self, number: int, secret: bytes, count: int) -> Written:
        return await anyio.to_thread.run_sync(self._work.write, number, secret, count)

    async def used(self, count: int) -> None:
        self._work.used(count)


@dataclass
class Place:
    """A running oracle."""

    port: int
    oracle: Oracle
    chain: ToldChain
    supply: ToldSupply
    followers: Followers

    async def settle(self) -> None:
        """Wait until all is done that is done in the newest block, however long that takes."""
        with anyio.fail_after(WAIT_S):
            while not self.followers.are_done(self.chain.head):
                await anyio.sleep(0.002)

    async def reach(self, block: int) -> None:
        """Go on to a block, and let all be done in it."""
        self.chain.head = block
        await self.settle()

    async def get(
        self,
        path: str,
        who: Keypair | None = None,
        *,
        receiver: Hotkey | None = None,
        signed_path: str | None = None,
        nonce_ns: int | None = None,
        method: str = "GET",
    ) -> Reply:
        return await send_raw(
            self.port,
            a_get(path, who, receiver=receiver, signed_path=signed_path, nonce_ns=nonce_ns, method=method),
        )

    async def ask(self, who: Keypair, place: int = 0, block: int | None = None) -> Reply:
        named = "" if block is None else f"&block={block}"
        return await self.get(f"/v1/private-input?place={place}{named}", who)

    async def given(self, who: Keypair, place: int = 0, block: int | None = None) -> PrivateInput:
        reply = await self.ask(who, place, block)
        assert reply.status == 200, reply.body
        return PrivateInput.from_bytes(reply.body)

    async def commitments(self, start: int = 0) -> list[Commitment]:
        reply = await self.get(f"/v1/commitments?from={start}")
        assert reply.status == 200, reply.body
        return [Commitment.from_bytes(json.dumps(each)) for each in json.loads(reply.body)]

    async def committed(self, number: int) -> Commitment:
        """A commitment, once it is made."""
        with anyio.fail_after(WAIT_S):
            while not (found := await self.commitments(number)):
                await anyio.sleep(0.005)
        return found[0]

    async def begun(self) -> Commitment:
        """Go on to the first block of the first period; returns its commitment."""
        commitment = await self.committed(0)
        self.chain.head = commitment.body.first
        return commitment

    async def until_status(self, status: int, who: Keypair = ALICE) -> Reply:
        """Ask until it is answered so."""
        with anyio.fail_after(WAIT_S):
            while (reply := await self.ask(who)).status != status:
                await anyio.sleep(0.01)
        return reply


def a_get(
    path: str,
    who: Keypair | None,
    *,
    receiver: Hotkey | None = None,
    signed_path: str | None = None,
    nonce_ns: int | None = None,
    method: str = "GET",
) -> bytes:
    headers: Mapping[str, str] = {}
    if who is not None:
        headers = sign(
            who,
            method=method,
            target=signed_path or path,
            body=b"",
            receiver=receiver or key(ORACLE),
            nonce_ns=nonce_ns or time.time_ns(),
        )
    return head(headers, method=method, path=path)


@asynccontextmanager
async def an_oracle(
    folder: Path,
    chain: ToldChain | None = None,
    supply: ToldSupply | None = None,
    engine: Engine | None = None,
    registry: CollectorRegistry | None = None,
    **settings: Any,
) -> AsyncIterator[Place]:
    chain, supply = chain or ToldChain(), supply or ToldSupply()
    told: dict[str, Any] = {"folder": folder, "port": 0, "places": 3, "period_blocks": 12} | settings
    oracle = Oracle(
        writer=HereWriter(supply, folder),
        source="told",
        chain=chain,
        signer=ORACLE,
        settings=OracleSettings(**told),  # type: ignore[arg-type]
        engine=engine,
        registry=registry,
    )
    followers = Followers(oracle)
    async with anyio.create_task_group() as tasks:
        axon = await tasks.start(oracle.run)
        yield Place(axon.port, oracle, chain, supply, followers)
        tasks.cancel_scope.cancel()
