"""A small world for the transport's tests: real sockets on loopback, real keys, and peers that misbehave."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener, TLSStream
from bittensor import http_auth
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Send

from targon.protocol import receipts
from targon.protocol.messages import ChatMessage, Completion, GenerateRequest, GenerateResponse, Sampling
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId
from targon.transport import (
    Clock,
    Deadlines,
    Gate,
    Handler,
    Limits,
    NeuronClient,
    Policy,
    Route,
    ServerTls,
    SignedRequest,
    bind,
    bound_port,
    send_json,
    serve,
)

ALICE = Keypair.create_from_uri("//Alice")
BOB = Keypair.create_from_uri("//Bob")
CHARLIE = Keypair.create_from_uri("//Charlie")

PATIENT = Deadlines(connect_s=30.0, first_byte_s=30.0, between_bytes_s=30.0, total_s=60.0)
"""A busy machine is no slow prover. A test of who is given up shortens what it is about."""

VERIFIER = Hotkey(ALICE.ss58_address)
PROVER = Hotkey(BOB.ss58_address)


OVER_TLS = False
"""Whether servers, clients and raw connections of this world speak TLS. The fixture ``wire`` runs a test both ways."""


@dataclass(frozen=True)
class Place:
    """Where somebody serves."""

    port: int
    host: str = "127.0.0.1"


def a_request(*, stream: bool = False, max_tokens: int = 8, **changes: Any) -> GenerateRequest:
    fields: dict[str, Any] = {
        "salt": "01" * 32,
        "genesis": "02" * 32,
        "netuid": 4,
        "verifier": VERIFIER,
        "prover": PROVER,
        "attempt": "00000000000000aa",
        "block": Block(100),
        "block_hash": "03" * 32,
        "log_head": "04" * 32,
        "model": "tiny",
        "messages": (ChatMessage(role="user", content="What is a prime?"),),
        "sampling": Sampling(seed="0000000000000007", temperature=0.8, max_tokens=max_tokens),
        "stream": stream,
    }
    return GenerateRequest(**(fields | changes))


@lru_cache
def a_response(request: GenerateRequest, token_ids: tuple[int, ...] = (5, 6, 7)) -> GenerateResponse:
    """Always the same for the same request: signatures of sr25519 are not."""
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(TokenId(token) for token in token_ids),
        finish_reason="stop",
        text="one two three",
    )
    receipt = receipts.issue(
        request, completion, model_digest=Digest("06" * 32), issued_at=1, salt=b"\x07" * 32, signer=BOB
    )
    return GenerateResponse(completion=completion, receipt=receipt)


@dataclass
class Served:
    """A running gate."""

    port: int
    registry: CollectorRegistry
    handled: list[SignedRequest] = field(default_factory=list)

    @property
    def place(self) -> Place:
        return Place(self.port)

    def refusals(self, code: str) -> float:
        return self.registry.get_sample_value("targon_refusals_total", {"code": code}) or 0.0


def everyone(hotkey: Hotkey) -> None:
    """The policy that admits every caller."""


@asynccontextmanager
async def a_gate(
    *,
    handler: Handler | None = None,
    policy: Policy = everyone,
    limits: Limits | None = None,
    clock: Clock | None = None,
    grace_s: int = 1,
    tls: ServerTls | None = None,
) -> AsyncIterator[Served]:
    """Bob's gate, over real HTTP; by default it echoes each body's length."""
    limits = limits or Limits()
    tls = tls or (ServerTls(BOB) if OVER_TLS else None)
    sock = bind("127.0.0.1", 0)
    served = Served(bound_port(sock), CollectorRegistry())

    async def handle(signed: SignedRequest, receive: Receive, send: Send) -> None:
        served.handled.append(signed)
        if handler is not None:
            await handler(signed, receive, send)
        else:
            await send_json(send, 200, json.dumps({"bytes": len(signed.body)}).encode())

    gate = Gate(
        receiver=PROVER,
        routes={
            "/v1/generate": Route("POST", handle, takes_body=True),
            "/v1/status": Route("GET", handle, takes_body=False),
            "/v1/log": Route("GET", handle, takes_body=False, takes_query=True),
        },
        open_routes={"/healthz": b'{"status":"ok"}'},
        policy=policy,
        limits=limits,
        registry=served.registry,
        clock=clock,
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: _serve(gate, sock, limits, tls, grace_s, task_status))
        yield served
        tasks.cancel_scope.cancel()


async def _serve(
    gate: Gate, sock: Any, limits: Limits, tls: ServerTls | None, grace_s: int, task_status: Any
) -> None:
    await serve(gate, sock, limits=limits, tls=tls, grace_s=grace_s, task_status=task_status)


def a_client(**settings: Any) -> NeuronClient:
    """A client of this world's servers."""
    return NeuronClient(**({"tls": "on" if OVER_TLS else "off"} | settings))


async def connect(port: int) -> ByteStream:
    """A raw connection, over TLS where that is spoken; its client believes any certificate."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    if not OVER_TLS:
        return stream
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await TLSStream.wrap(
        stream, server_side=False, ssl_context=context, hostname="any", standard_compatible=False
    )


def signed_headers(
    body: bytes = b"{}",
    *,
    signer: Keypair = ALICE,
    receiver: str = PROVER,
    method: str = "POST",
    path: str = "/v1/generate",
    nonce_ns: int | None = None,
) -> dict[str, str]:
    headers = http_auth.sign(
        signer,
        method=method,
        path=path,
        body=body,
        receiver_ss58=receiver,
        nonce_ns=nonce_ns or time.time_ns(),
    )
    if method == "POST":
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return headers


def head(headers: dict[str, str], *, method: str = "POST", path: str = "/v1/generate") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: prover"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(frozen=True)
class Reply:
    """What came back over a raw socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)["error"]
        return value

    @property
    def code(self) -> str:
        return str(self.error["code"])


async def read_reply(stream: ByteStream, *, within_s: float = 60.0) -> Reply:
    """One HTTP answer with a Content-Length."""
    data = b""
    with anyio.fail_after(within_s):
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        top, _, body = data.partition(b"\r\n\r\n")
        first, *rest = top.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        length = int(headers.get("content-length", "0"))
        while len(body) < length:
            body += await stream.receive()
    return Reply(int(first.split()[1]), headers, body[:length])


async def send_raw(port: int, *pieces: bytes, within_s: float = 60.0) -> Reply:
    """Send bytes as they are, and read the one answer."""
    async with await connect(port) as stream:
        for piece in pieces:
            await stream.send(piece)
        return await read_reply(stream, within_s=within_s)


async def post(port: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Reply:
    return await send_raw(port, head(signed_headers(body) if headers is None else headers), body)


Script = Callable[[ByteStream], Awaitable[None]]
"""What a scripted prover does with a connection once it has read the request."""


async def read_body(stream: ByteStream) -> bytes:
    """The body of the request that comes over a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    top, _, body = data.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in top.lower().split(b"\r\n")]
    length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
    while len(body) < length:
        body += await stream.receive()
    return body


@asynccontextmanager
async def a_scripted_prover(script: Script) -> AsyncIterator[Place]:
    """A server that reads one request per connection and then does as it likes."""
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port: int = tcp.extra(SocketAttribute.local_port)
    listener = TLSListener(tcp, ServerTls(BOB).context(), standard_compatible=False) if OVER_TLS else tcp

    async def handle(stream: ByteStream) -> None:
        async with stream:
            await read_body(stream)
            try:
                await script(stream)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield Place(port)
        tasks.cancel_scope.cancel()


def says(*pieces: bytes, pause_s: float = 0.0) -> Script:
    """A script that sends these pieces and hangs up."""

    async def script(stream: ByteStream) -> None:
        for piece in pieces:
            await stream.send(piece)
            await anyio.sleep(pause_s)

    return script


def ok(
    body: bytes, media_type: str = "application/json", *, length: int | None = None, extra: str = ""
) -> bytes:
    """An HTTP 200 answer."""
    size = len(body) if length is None else length
    top = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {size}\r\n{extra}\r\n"
    return top.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def token_event(*token_ids: int, text: str = "x") -> bytes:
    return b"data: " + json.dumps({"token_ids": token_ids, "text": text}).encode() + b"\n\n"


def done_event(response: GenerateResponse) -> bytes:
    return b"event: done\ndata: " + response.to_bytes() + b"\n\n"


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now_ns = time.time_ns()
        self.monotonic_s = 1000.0

    def turn(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)
        self.monotonic_s += seconds

    def clock(self) -> Clock:
        return Clock(now_ns=lambda: self.now_ns, monotonic_s=lambda: self.monotonic_s)
