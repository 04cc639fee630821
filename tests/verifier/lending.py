"""A world of oracles that lend tiny engines, over real HTTP, and of those that lie."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import numpy as np
import pytest
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.engines import Engine, Replayed, ReplayTask
from targon.oracle.reference import ReferenceDesk, ReferenceLimits
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.transport import Deadlines, Gate, Limits, NeuronClient, Policy, bind, bound_port, serve
from targon.verifier import board
from targon.verifier.lenders import TRUTH_S, Lender, Lenders
from tests.tiny_engine import EOS, TinyEngine

GENESIS = "ab" * 32
NETUID = 4
ALICE = Keypair.create_from_uri("//Alice")
ORACLES = [Keypair.create_from_uri(f"//Oracle{number}") for number in range(4)]


@dataclasses.dataclass(frozen=True)
class Place:
    port: int
    host: str = "127.0.0.1"


def everyone(hotkey: Hotkey) -> None:
    """The policy that admits every caller."""


class LyingEngine(TinyEngine):
    """Says of every claimed token that it is what the sampler draws."""

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return [self._kind(task, said) for task, said in zip(tasks, await super().replay(tasks), strict=True)]

    def _kind(self, task: ReplayTask, said: Replayed) -> Replayed:
        count = len(task.token_ids)
        replay = dataclasses.replace(
            said.replay,
            best_ids=np.array(task.token_ids, dtype=np.int64),
            margins=np.zeros(count),
            among=np.ones(count, dtype=np.bool_),
            claimed_rivals=np.zeros(count, dtype=np.uint8),
        )
        return dataclasses.replace(said, replay=replay)


class HardEngine(TinyEngine):
    """Says of every claimed token that another was to be drawn, by far."""

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        said = []
        for task, one in zip(tasks, await super().replay(tasks), strict=True):
            far = np.full(len(task.token_ids), 9.0)
            best = np.array([int(token) % 26 + 1 for token in task.token_ids], dtype=np.int64)
            replay = dataclasses.replace(one.replay, best_ids=best, gaps=far, margins=far)
            said.append(dataclasses.replace(one, replay=replay))
        return said


class WordyEngine(TinyEngine):
    """Hands its tokenizer out: a letter each, and an end that is special."""

    async def tokenizer_json(self) -> str:
        from tokenizers import AddedToken, Tokenizer, decoders, models

        letters = {chr(ord("a") - 1 + token): token for token in range(1, 27)}
        tokenizer = Tokenizer(models.WordLevel({"<end>": int(EOS), **letters}, unk_token="<end>"))
        tokenizer.decoder = decoders.Fuse()
        tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
        return str(tokenizer.to_str())


@asynccontextmanager
async def an_oracle(
    engine: Engine,
    signer: Signer,
    *,
    policy: Policy = everyone,
    limits: ReferenceLimits | None = None,
    port: int = 0,
    claims_to_be: Signer | None = None,
    desks: list[ReferenceDesk] | None = None,
) -> AsyncIterator[int]:
    """The desk of one oracle behind a gate; the port.

    Args:
        desks: the desk is added to it.
        claims_to_be: who its gate is; what it says is signed by ``signer`` all the same.
    """
    sock = bind("127.0.0.1", port)
    desk = ReferenceDesk(
        engine, signer, genesis=GENESIS, netuid=NETUID, newest=lambda: Block(100), limits=limits
    )
    if desks is not None:
        desks.append(desk)
    gate = Gate(
        receiver=Hotkey((claims_to_be or signer).ss58_address),
        routes=desk.routes,
        policy=policy,
        limits=Limits(),
        registry=CollectorRegistry(),
    )
    async with anyio.create_task_group() as group:

        async def run(*, task_status: Any) -> None:
            await serve(gate, sock, limits=Limits(), grace_s=1, task_status=task_status)

        await group.start(lambda task_status: run(task_status=task_status))
        try:
            yield bound_port(sock)
        finally:
            group.cancel_scope.cancel()


def hotkey(number: int) -> Hotkey:
    return Hotkey(ORACLES[number].ss58_address)


class Hurried(NeuronClient):
    """Waits for a ground truth no longer than this, whatever it is told; and counts how often it was sent for one."""

    sent = 0

    async def post(self, *args: Any, deadlines: Deadlines | None = None, **options: Any) -> bytes:
        if deadlines is not None and deadlines.total_s == TRUTH_S:
            self.sent += 1
            deadlines = Deadlines(connect_s=0.1, first_byte_s=0.1, between_bytes_s=0.1, total_s=0.1)
        return await super().post(*args, deadlines=deadlines, **options)


async def hurry(lenders: Lenders, stack: AsyncExitStack) -> Hurried:
    """Have the first oracle be waited for no longer than a test wants to; the others have all the time they need."""
    client = await stack.enter_async_context(Hurried(tls="off"))
    first, *others = lenders.lenders
    lenders.lenders = (dataclasses.replace(first, client=client), *others)
    return client


@asynccontextmanager
async def lent(*engines: Engine, timeout_s: float = 30.0, grace_s: float = 30.0) -> AsyncIterator[Lenders]:
    """Oracles that lend these engines, as Alice asks them.

    Args:
        grace_s: for how long they are heard that come last. Long: who is slow on a busy machine was heard all the same.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(board, "GRACE_S", grace_s)
        client = await stack.enter_async_context(NeuronClient(tls="off"))
        lenders = []
        for engine, pair in zip(engines, ORACLES, strict=False):
            port = await stack.enter_async_context(an_oracle(engine, pair))
            lenders.append(Lender(Hotkey(pair.ss58_address), Place(port), client))
        yield Lenders(
            lenders, ALICE, genesis=GENESIS, netuid=NETUID, registry=CollectorRegistry(), timeout_s=timeout_s
        )
