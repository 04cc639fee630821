"""A small world for the prover's tests: a chain in memory, an engine that counts, real HTTP and real signatures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import numpy as np
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.chain.errors import ChainUnavailable, NotRegistered, UnknownBlock
from targon.chain.port import Axon, Metagraph, Neuron, SubnetInfo
from targon.engines.errors import EngineUnavailable
from targon.engines.port import GenerateTask, ModelIdentity, Replayed, ReplayTask, Scores, ScoreTask, Step
from targon.protocol.keys import Signer
from targon.protocol.messages import ChatMessage, GenerateRequest, Sampling
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId, Uid
from targon.prover import Prover, ProverSettings
from targon.transport import Clock, NeuronClient

PROVER = Keypair.create_from_uri("//Bob")
WHALE = Keypair.create_from_uri("//Whale")
VERIFIER = Keypair.create_from_uri("//Alice")
MINNOW = Keypair.create_from_uri("//Minnow")
STRANGER = Keypair.create_from_uri("//Stranger")

GENESIS = Digest("ab" * 32)
NETUID = 4


def hash_of(block: int) -> Digest:
    return Digest(f"{block:064x}")


def a_neuron(uid: int, key: Keypair, stake: float, *, permit: bool = False) -> Neuron:
    return Neuron(
        uid=Uid(uid),
        hotkey=Hotkey(key.ss58_address),
        stake=stake,
        validator_permit=permit,
        axon=None,
        registered_at=Block(1),
        last_update=None,
        incentive=0.0,
        dividends=0.0,
    )


class MemoryChain:
    """A chain that does as it is told."""

    def __init__(self, *, block_seconds: float = 0.2) -> None:
        self.head = 100
        self.down = False
        self.calls = 0
        self.refuse_axons = 0
        self.info_value = SubnetInfo(NETUID, GENESIS, block_seconds, 100, 0, 0)
        self.neurons = [
            a_neuron(0, PROVER, 0.0),
            a_neuron(1, VERIFIER, 100.0, permit=True),
            a_neuron(2, WHALE, 9000.0, permit=True),
            a_neuron(3, MINNOW, 1.0),
        ]

    async def _answer(self) -> None:
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        if self.down:
            raise ChainUnavailable("the chain is down")

    async def info(self) -> SubnetInfo:
        await self._answer()
        return self.info_value

    async def block(self) -> Block:
        await self._answer()
        return Block(self.head)

    async def block_hash(self, block: Block) -> Digest:
        await self._answer()
        if block > self.head:
            raise UnknownBlock(block, Block(self.head))
        return hash_of(block)

    async def metagraph(self) -> Metagraph:
        await self._answer()
        return Metagraph(NETUID, Block(self.head), tuple(self.neurons))

    async def serve_axon(self, signer: Signer, axon: Axon) -> None:
        await self._answer()
        if self.refuse_axons:
            self.refuse_axons -= 1
            raise ChainUnavailable("try later")
        for place, neuron in enumerate(self.neurons):
            if neuron.hotkey == signer.ss58_address:
                self.neurons[place] = replace(neuron, axon=axon)
                return
        raise NotRegistered(Hotkey(signer.ss58_address), NETUID, "targon register")

    async def set_weights(self, signer: Signer, weights: Mapping[Uid, int], version_key: int) -> Block:
        raise NotImplementedError

    async def weights_of(self, uid: Uid) -> dict[Uid, int]:
        return {}

    async def aclose(self) -> None:
        return

    def axon_of(self, key: Keypair) -> Axon | None:
        return next(neuron.axon for neuron in self.neurons if neuron.hotkey == key.ss58_address)


class CountingEngine:
    """Answers 1, 2, 3, … up to the limit; can be held, broken or slowed."""

    def __init__(self) -> None:
        self.identity = ModelIdentity(
            name="tiny",
            model_digest=Digest("cd" * 32),
            dtype="float32",
            engine="counting",
            vocab_size=1000,
            context_length=512,
            eos_ids=(TokenId(0),),
            dialects=("targon/1", "greedy"),
            max_batch=2,
        )
        self.tasks: list[GenerateTask] = []
        self.closed = 0
        self.pause_s = 0.0
        self.fail_at: int | None = None
        self.error: Exception = EngineUnavailable("the GPU fell out")
        self.hold: anyio.Event | None = None
        self.finishes = True

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        self.tasks.append(task)
        try:
            if self.hold is not None:
                await self.hold.wait()
            for number in range(1, task.sampling.max_tokens + 1):
                await anyio.sleep(self.pause_s)
                if number == self.fail_at:
                    raise self.error
                last = number == task.sampling.max_tokens and self.finishes
                yield Step(TokenId(number), f" {number}", -0.5, "length" if last else None)
        finally:
            self.closed += 1

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        ids, logs = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return [Scores(ids, logs, logs, ids, 0) for _ in tasks]

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        raise NotImplementedError

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        return ()

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        return "".join(f" {token}" for token in token_ids)

    async def check(self) -> None:
        if self.fail_at == 0:
            raise self.error

    async def aclose(self) -> None:
        return


@dataclass
class World:
    """A running prover and what it stands on."""

    axon: Axon
    chain: MemoryChain
    engine: CountingEngine
    registry: CollectorRegistry
    client: NeuronClient
    attempts: int = field(default=0)

    def request(
        self, *, verifier: Keypair = VERIFIER, max_tokens: int = 4, **changes: Any
    ) -> GenerateRequest:
        """A request that is right in every way, but for what is changed."""
        self.attempts += 1
        fields: dict[str, Any] = {
            "salt": "01" * 32,
            "genesis": GENESIS,
            "netuid": NETUID,
            "verifier": verifier.ss58_address,
            "prover": PROVER.ss58_address,
            "attempt": f"{self.attempts:016x}",
            "block": Block(self.chain.head),
            "block_hash": hash_of(changes.get("block", self.chain.head)),
            "log_head": "04" * 32,
            "model": "tiny",
            "messages": (ChatMessage(role="user", content="Count."),),
            "sampling": Sampling(seed="0000000000000007", temperature=0.8, max_tokens=max_tokens),
        }
        return GenerateRequest(**(fields | changes))

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def until_waiting(self, count: int) -> None:
        with anyio.fail_after(5):
            while self.metric("targon_prover_queued") != count:
                await anyio.sleep(0.005)

    async def until_running(self, count: int) -> None:
        with anyio.fail_after(5):
            while self.metric("targon_prover_running") != count:
                await anyio.sleep(0.005)


@asynccontextmanager
async def a_prover(
    *,
    engine: CountingEngine | None = None,
    chain: MemoryChain | None = None,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """Bob's prover, serving on a free port of loopback, and a client to ask it with."""
    engine, chain, registry = engine or CountingEngine(), chain or MemoryChain(), CollectorRegistry()
    prover = Prover(
        engine=engine,
        chain=chain,
        signer=PROVER,
        settings=ProverSettings(**({"port": 0} | settings)),
        registry=registry,
        clock=clock,
    )
    async with NeuronClient() as client, anyio.create_task_group() as tasks:
        axon = await tasks.start(lambda task_status: prover.run(task_status=task_status))
        yield World(axon, chain, engine, registry, client)
        tasks.cancel_scope.cancel()
