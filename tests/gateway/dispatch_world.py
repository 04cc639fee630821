"""A small world for dispatch: a desk that does as it is told, and provers over real HTTP, good and bad."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.gateway.dispatch import Dispatcher
from targon.gateway.dispatch_errands import Patience
from targon.gateway.dispatch_hedging import Hedging
from targon.gateway.ports import Began, Delta, Finished
from targon.protocol import receipts
from targon.protocol.countersignatures import countersign
from targon.protocol.errors import ProtocolError
from targon.protocol.messages import (
    ChatMessage,
    Completion,
    GenerateRequest,
    GenerateResponse,
    Sampling,
)
from targon.protocol.orders import Order
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId, u64_hex
from targon.transport import Answer, Deadlines, Endpoint, NeuronClient, TransportError
from targon.transport.errands import (
    AnswerRefused,
    DeskError,
    Errand,
    Fault,
    FiledReceipt,
    NobodyFree,
    OfferedModel,
    Settled,
    UnknownModel,
    WhyWithdrawn,
)
from tests.prover.world import GENESIS, NETUID, PROVER, CountingEngine, a_prover, hash_of
from tests.transport.world import STREAM_HEAD, Place, done_event, read_body, token_event

VERIFIER = Keypair.create_from_uri("//Alice")
KEYS = [PROVER, *(Keypair.create_from_uri(f"//Prover{number}") for number in range(4))]
"""Of provers; the first one is the real prover's."""

LONG_S = 30.0
"""Longer than a machine that is busy with other things keeps anybody waiting."""
PATIENT = Patience(
    prover=Deadlines(connect_s=LONG_S, first_byte_s=LONG_S, between_bytes_s=LONG_S, total_s=2 * LONG_S),
    hedging=Hedging(unknown_s=60.0),
    failover_s=LONG_S,
    take_s=LONG_S,
    settle_s=LONG_S,
    reader_s=LONG_S,
)
"""Nobody is hedged, nor given up. A test in which somebody is shortens what it is about."""
HEDGED = replace(PATIENT, hedging=Hedging(unknown_s=0.15, floor_s=0.05))
"""Who hasn't begun soon is overtaken."""
CHARGED = replace(HEDGED, prover=replace(PATIENT.prover, first_byte_s=1.5, between_bytes_s=0.5))
"""And who hasn't long after that is given up."""


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(LONG_S):
        while not holds():
            await anyio.sleep(0.005)


def an_order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "model": "tiny",
        "messages": (ChatMessage(role="user", content="Count."),),
        "max_tokens": 4,
    }
    return Order(**(fields | changes))


class ScriptedDesk:
    """Gives errands to its provers in turn, and writes down what it is told."""

    def __init__(self, provers: Sequence[tuple[Keypair, Endpoint]]) -> None:
        self.provers = list(provers)
        self.told: list[tuple[str, int]] = []
        """What was settled, and of which prover (its place in the list)."""
        self.errors: list[TransportError] = []
        self.answers: list[Answer] = []
        self.asked = 0
        """How often it was asked for an errand."""
        self.taken: list[Errand] = []
        self.instead_of: list[Errand | None] = []
        self.refusal: DeskError | None = None
        self.fault: Fault = "prover"
        self.pause_s = 0.0
        """How long it takes to give an errand."""
        self.settles = anyio.Event()
        """Until it is set, nothing is settled; it is, unless a test puts in another."""
        self.settles.set()
        self.settling: list[str] = []
        """What it was told, settled or not."""
        self.counts_prompts = True
        self.counting: Callable[[], Awaitable[None]] = lambda: anyio.lowlevel.checkpoint()
        """What comes before a prompt's length is told."""
        self.filed: dict[str, FiledReceipt] = {}

    def models(self) -> tuple[OfferedModel, ...]:
        return (OfferedModel("tiny", Digest("cd" * 32), 512, 256),)

    async def take(
        self, order: Order, *, instead_of: Errand | None = None, tried: Collection[Hotkey] = ()
    ) -> Errand:
        self.asked += 1
        await anyio.sleep(self.pause_s)
        if self.refusal is not None:
            raise self.refusal
        if order.model != "tiny":
            raise UnknownModel(order.model, ("tiny",))
        free = [(key, axon) for key, axon in self.provers if key.ss58_address not in tried]
        if not free:
            raise NobodyFree("no prover is free", 7.0)
        key, axon = free[0]
        request = GenerateRequest(
            salt=os.urandom(32).hex(),
            genesis=GENESIS,
            netuid=NETUID,
            verifier=Hotkey(VERIFIER.ss58_address),
            prover=Hotkey(key.ss58_address),
            attempt=u64_hex(len(self.taken)),
            block=Block(100),
            block_hash=hash_of(100),
            log_head="04" * 32,
            model=order.model,
            messages=order.messages,
            sampling=Sampling(seed="0000000000000007", temperature=0.8, max_tokens=order.max_tokens or 4),
            stream=True,
        )
        errand = Errand(request, request.digest(), axon, 1 if self.counts_prompts else None)
        self.taken.append(errand)
        self.instead_of.append(instead_of)
        return errand

    async def answered(self, errand: Errand, answer: Answer) -> Settled:
        await self._settle("answered")
        response = answer.response
        try:
            receipts.check(response.receipt, errand.request, response.completion)
        except ProtocolError as error:
            self._tell("refused", errand)
            raise AnswerRefused(str(error)) from error
        self._tell("answered", errand)
        self.answers.append(answer)
        settled = Settled(errand.receipt_id, len(self.told), Digest("ee" * 32))
        signed = countersign(
            response.receipt, record=settled.record, record_hash=settled.record_hash, signer=VERIFIER
        )
        self.filed[errand.receipt_id] = FiledReceipt(response.receipt, signed, Block(100), None)
        return settled

    async def failed(self, errand: Errand, error: TransportError) -> Fault:
        await self._settle("failed")
        self._tell("failed", errand)
        self.errors.append(error)
        return self.fault

    async def withdrawn(self, errand: Errand, why: WhyWithdrawn) -> None:
        await self._settle(why)
        self._tell(why, errand)

    async def _settle(self, what: str) -> None:
        self.settling.append(what)
        await anyio.lowlevel.checkpoint()
        await self.settles.wait()

    async def prompt_tokens(self, messages: Sequence[ChatMessage]) -> int:
        await self.counting()
        return len(messages)

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        return self.filed.get(receipt_id)

    async def until_told(self, count: int) -> list[tuple[str, int]]:
        await until(lambda: len(self.told) >= count)
        return self.told

    def _tell(self, what: str, errand: Errand) -> None:
        place = [key.ss58_address for key, _ in self.provers].index(errand.request.prover)
        self.told.append((what, place))


Script = Callable[[ByteStream, GenerateRequest, Keypair], Awaitable[None]]
"""What a scripted prover does once it has read the request."""


def signed_answer(
    request: GenerateRequest,
    key: Keypair,
    *tokens: int,
    text: str | None = None,
    logprobs: tuple[float, ...] | None = None,
) -> GenerateResponse:
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(TokenId(token) for token in tokens),
        finish_reason="length",
        text="x" * len(tokens) if text is None else text,
        logprobs=logprobs,
    )
    receipt = receipts.issue(
        request, completion, model_digest=Digest("06" * 32), issued_at=1, salt=b"\x07" * 32, signer=key
    )
    return GenerateResponse(completion=completion, receipt=receipt)


def answers(
    *tokens: int,
    after_s: float = 0.0,
    pause_s: float = 0.0,
    begins: anyio.Event | None = None,
    ends: anyio.Event | None = None,
    text: str | None = None,
    texts: Sequence[str] | None = None,
) -> Script:
    """Answers well, in its own time.

    Args:
        begins: what it waits for before its first token.
        ends: what it waits for before it says that this was all.
        text: what it signs, where that is not what it streams.
        texts: what it streams, token by token.
    """

    async def script(stream: ByteStream, request: GenerateRequest, key: Keypair) -> None:
        await anyio.sleep(after_s)
        if begins is not None:
            await begins.wait()
        await stream.send(STREAM_HEAD)
        said = texts or ["x"] * len(tokens)
        for token, piece in zip(tokens, said, strict=True):
            await stream.send(token_event(token, text=piece))
            if pause_s:
                await anyio.sleep(pause_s)
        if ends is not None:
            await ends.wait()
        signed = "".join(said) if text is None else text
        await stream.send(done_event(signed_answer(request, key, *tokens, text=signed)))

    return script


def sends(*pieces: bytes, then_waits_s: float = 0.0, ends: anyio.Event | None = None) -> Script:
    """Sends these bytes, whatever it was asked, and hangs up."""

    async def script(stream: ByteStream, request: GenerateRequest, key: Keypair) -> None:
        for piece in pieces:
            await stream.send(piece)
        await anyio.sleep(then_waits_s)
        if ends is not None:
            await ends.wait()

    return script


SILENT = sends(then_waits_s=600.0)
"""Accepts, and never answers."""


@asynccontextmanager
async def a_scripted_prover(script: Script, key: Keypair) -> AsyncIterator[Place]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):

        async def handle(stream: ByteStream) -> None:
            async with stream:
                body = await read_body(stream)
                try:
                    await script(stream, GenerateRequest.from_bytes(body), key)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return

        tasks.start_soon(listener.serve, handle)
        yield Place(listener.extra(SocketAttribute.local_port))
        tasks.cancel_scope.cancel()


@dataclass
class World:
    """A running dispatcher and what it stands on."""

    dispatcher: Dispatcher
    desk: ScriptedDesk
    registry: CollectorRegistry
    engines: list[CountingEngine] = field(default_factory=list)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def a_world(
    *provers: Script | CountingEngine, patience: Patience = PATIENT, max_running: int = 100
) -> AsyncIterator[World]:
    """A dispatcher over these provers, in the order in which the desk draws them; at most one is real."""
    async with AsyncExitStack() as stack:
        listed: list[tuple[Keypair, Endpoint]] = []
        engines = [prover for prover in provers if isinstance(prover, CountingEngine)]
        for prover, key in zip(provers, KEYS[1:], strict=False):
            if isinstance(prover, CountingEngine):
                real = await stack.enter_async_context(a_prover(engine=prover))
                listed.append((PROVER, real.axon))
            else:
                listed.append((key, await stack.enter_async_context(a_scripted_prover(prover, key))))
        desk, registry = ScriptedDesk(listed), CollectorRegistry()
        client = await stack.enter_async_context(NeuronClient(tls="off"))
        dispatcher = Dispatcher(
            desk=desk,
            client=client,
            signer=VERIFIER,
            registry=registry,
            patience=patience,
            max_running=max_running,
        )
        tasks = await stack.enter_async_context(anyio.create_task_group())
        await tasks.start(lambda task_status: dispatcher.run(task_status=task_status))
        yield World(dispatcher, desk, registry, engines)
        tasks.cancel_scope.cancel()


Parts = AsyncGenerator[Began | Delta | Finished, None]


async def all_of(parts: Parts) -> tuple[str, Finished]:
    """What was begun, streamed and finished: the text, and how it ended."""
    with anyio.fail_after(2 * LONG_S):
        first, *deltas, last = [part async for part in parts]
    assert isinstance(first, Began)
    assert isinstance(last, Finished)
    return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), last
