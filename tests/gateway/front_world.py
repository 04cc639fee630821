"""A gateway's front on loopback, with whoever fulfils its orders scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from bittensor.keyfiles import Keypair
from openai import AsyncOpenAI, OpenAI
from prometheus_client import CollectorRegistry

from targon.gateway.api import Door, Front, FrontSettings
from targon.gateway.keyring import KeyRing
from targon.gateway.keys import Allowed, KeyFile
from targon.gateway.ports import Began, Delta, Finished
from targon.protocol import receipts
from targon.protocol.countersignatures import countersign
from targon.protocol.messages import (
    ChatMessage,
    Completion,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Sampling,
)
from targon.protocol.orders import Order
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId
from targon.transport.errands import FiledReceipt, OfferedModel, Settled, UnknownModel

ALICE = Keypair.create_from_uri("//Alice")
BOB = Keypair.create_from_uri("//Bob")
MODEL = "tiny/model-1"
NOW = 1_790_000_000


def delta(text: str, *ids: int, logprobs: Sequence[float] | None = None) -> Delta:
    ids = ids or (len(text),)
    return Delta(text, tuple(TokenId(one) for one in ids), None if logprobs is None else tuple(logprobs))


HELLO = (delta("Hel", 1, logprobs=[-0.5]), delta("lo", 2, logprobs=[-0.25]), delta("", 0, logprobs=[-0.125]))


@dataclass
class Script:
    """Fulfils orders as it is told. What is not told is a friendly word."""

    pieces: Sequence[Delta | Exception | Callable[[], Any]] = HELLO
    """What comes after the answer has begun: pieces, an error to raise, or something to await."""
    before: Exception | Callable[[], Any] | None = None
    """What happens before it has begun."""
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 7
    orders: list[Order] = field(default_factory=list)
    hung_up: int = 0
    finished: int = 0
    filed: dict[Digest, FiledReceipt] = field(default_factory=dict)
    offered: tuple[OfferedModel, ...] = (OfferedModel(MODEL, Digest("ab" * 32), 2048, 1024),)

    def models(self) -> tuple[OfferedModel, ...]:
        return self.offered

    async def fulfil(self, order: Order) -> AsyncGenerator[Began | Delta | Finished, None]:
        names = tuple(one.name for one in self.offered)
        if order.model not in names:
            raise UnknownModel(order.model, names)
        self.orders.append(order)
        request = a_request(order, len(self.orders))
        receipt_id = request.digest()
        offered = self.offered[names.index(order.model)]
        longest = order.max_tokens or offered.default_tokens
        try:
            await _do(self.before)
            yield Began(receipt_id)
            given: list[Delta] = []
            for piece in self.pieces:
                if isinstance(piece, Delta):
                    if longest <= 0:
                        break
                    longest -= len(piece.token_ids)
                    given.append(piece)
                    yield piece
                else:
                    await _do(piece)
        except (GeneratorExit, asyncio.CancelledError):
            self.hung_up += 1
            raise
        response = a_response(request, given, self.finish_reason)
        record = 10 + len(self.orders)
        signed = countersign(response.receipt, record=record, record_hash=Digest("07" * 32), signer=ALICE)
        self.filed[receipt_id] = FiledReceipt(response.receipt, signed, Block(101), None)
        self.finished += 1
        yield Finished(
            finish_reason=self.finish_reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=len(response.completion.token_ids),
            settled=Settled(receipt_id, record, Digest("07" * 32)),
            request=request,
            response=response,
        )

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        return self.filed.get(receipt_id)


async def leave_after(client: AsyncOpenAI, word: str, script: Script) -> None:
    """A user that hangs up in the middle of a streamed answer, and what answers it notices."""
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Say hello."}], stream=True
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content == word:
            break
    await stream.close()
    with anyio.fail_after(5):
        while not script.hung_up:
            await anyio.sleep(0.01)


async def _do(what: Exception | Callable[[], Any] | None) -> None:
    if isinstance(what, Exception):
        raise what
    if what is not None:
        await what()


def a_request(order: Order, attempt: int) -> GenerateRequest:
    return GenerateRequest(
        salt=f"{attempt:064x}",
        genesis="02" * 32,
        netuid=4,
        verifier=Hotkey(ALICE.ss58_address),
        prover=Hotkey(BOB.ss58_address),
        attempt=f"{attempt:016x}",
        block=Block(100),
        block_hash="03" * 32,
        log_head="04" * 32,
        model=order.model,
        messages=order.messages,
        sampling=Sampling(
            seed="0000000000000007",
            temperature=order.temperature,
            top_p=order.top_p,
            top_k=order.top_k,
            max_tokens=order.max_tokens or 64,
            stop=order.stop,
            choice=order.choice,
        ),
        stream=True,
    )


def a_response(request: GenerateRequest, given: Sequence[Delta], reason: FinishReason) -> GenerateResponse:
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(token for piece in given for token in piece.token_ids),
        finish_reason=reason,
        text="".join(piece.text for piece in given),
    )
    receipt = receipts.issue(
        request,
        completion,
        model_digest=Digest("ab" * 32),
        issued_at=NOW,
        salt=bytes(32),
        signer=BOB,
    )
    return GenerateResponse(completion=completion, receipt=receipt)


@dataclass
class World:
    """A running front, its keys, and whoever fulfils its orders."""

    front: Front
    port: int
    script: Script
    file: KeyFile
    ring: KeyRing
    key: str
    registry: CollectorRegistry

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str | None = None, **options: Any) -> Any:
        return AsyncOpenAI(base_url=self.url, api_key=key or self.key, **({"max_retries": 0} | options))

    def sync_client(self, **options: Any) -> Any:
        return OpenAI(base_url=self.url, api_key=self.key, **({"max_retries": 0} | options))

    async def raw(self, request: bytes, *, until_closed: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Send bytes; returns status, headers and body of the reply."""
        stream = await anyio.connect_tcp("127.0.0.1", self.port)
        async with stream:
            await stream.send(request)
            with anyio.fail_after(20):
                return await read_reply(stream, until_closed=until_closed)

    async def post(
        self, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """POST a body as it is; returns status, headers and the reply's JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            "host": "x",
            "authorization": f"Bearer {self.key}",
            "content-type": "application/json",
            "content-length": str(len(data)),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        status, got, reply = await self.raw(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        return status, got, json.loads(reply)

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels) or 0.0


async def read_reply(stream: Any, *, until_closed: bool = False) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    try:
        if until_closed:
            while True:
                body += await stream.receive()
        elif "content-length" in headers:
            while len(body) < int(headers["content-length"]):
                body += await stream.receive()
        else:
            while not body.endswith(b"0\r\n\r\n"):
                body += await stream.receive()
    except anyio.EndOfStream:
        pass
    return int(lines[0].split()[1]), headers, body


@asynccontextmanager
async def a_front(
    folder: Path,
    script: Script | None = None,
    *,
    allowed: Allowed | None = None,
    open_to_all: bool = False,
    limits: Any = None,
    **settings: Any,
) -> AsyncIterator[World]:
    script = script or Script()
    file = KeyFile(folder / "keys.sqlite")
    unlimited = Allowed(requests_per_minute=0, tokens_per_minute=0, concurrent=0)
    _, key = file.create("tester", now=NOW, allowed=allowed or unlimited)
    ring = KeyRing(file, open_to_all=open_to_all, look_s=0.05)
    registry = CollectorRegistry()
    more = {} if limits is None else {"limits": limits}
    try:
        with Door(FrontSettings(**({"port": 0} | settings))) as door:
            front = Front(script, ring, door, registry=registry, **more)
            async with anyio.create_task_group() as tasks:
                await tasks.start(front.run)
                yield World(front, door.port, script, file, ring, key, registry)
                front.stop()
    finally:
        file.close()


def chat(text: str = "Say hello.", **changes: Any) -> dict[str, Any]:
    """The body of a request to chat completions."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]} | changes


def a_message(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)
