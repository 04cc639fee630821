"""Signed HTTP on loopback: round trips a second with two clients, over TLS too, and what a streamed token costs.

Server and client share one process and one core, so every figure holds both ends: signing, HTTP, admission, the
signature's check, parsing the request, parsing the answer. The engine answers at once. Nothing waits longer than
``LIMIT_S``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from bittensor import http_auth
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Send

from benchmarks.row import Row
from targon.protocol import receipts
from targon.protocol.messages import (
    ChatMessage,
    Completion,
    GenerateRequest,
    GenerateResponse,
    Sampling,
    TokenEvent,
)
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId
from targon.transport import (
    Allowance,
    EventStream,
    Gate,
    Limits,
    NeuronClient,
    Route,
    ServerTls,
    SignedRequest,
    bind,
    bound_port,
    send_json,
    serve,
)

LIMIT_S = 60.0
AT_ONCE = 16
TOKENS = 32

VERIFIER = Keypair.create_from_uri("//Alice")
PROVER = Keypair.create_from_uri("//Bob")


@dataclass(frozen=True)
class Place:
    port: int
    host: str = "127.0.0.1"


def run(quick: bool) -> list[Row]:
    """Measure."""
    return anyio.run(_measure, 300 if quick else 3_000, 2_000 if quick else 20_000)


async def _measure(round_trips: int, tokens: int) -> list[Row]:
    request = a_request(stream=False, max_tokens=TOKENS)
    rows = []
    with anyio.fail_after(LIMIT_S):
        async with a_server() as place, NeuronClient() as client:

            async def with_ours() -> None:
                await client.generate(place, request, VERIFIER)

            note = f"{TOKENS} tokens whole, {len(request.to_bytes())} B request, {AT_ONCE} at once, one core"
            rate = await per_second(with_ours, round_trips)
            rows.append(Row("signed round trips", rate, "/s", note=note))
            rows.append(await _httpx_row(place, request, round_trips, note))
            rows.append(await _stream_row(place, client, tokens))
        rows.extend(await _tls_rows(request, round_trips, note))
    return rows


async def _tls_rows(request: GenerateRequest, round_trips: int, note: str) -> list[Row]:
    """The same round trip over TLS: on kept connections, and with a connection of its own each time."""
    async with a_server(ServerTls(PROVER)) as place:
        async with NeuronClient(tls="on") as client:

            async def kept() -> None:
                await client.generate(place, request, VERIFIER)

            rate = await per_second(kept, round_trips)

        async def anew() -> None:
            async with NeuronClient(tls="on") as client:
                await client.generate(place, request, VERIFIER)

        fresh = await per_second(anew, round_trips // 4)
    async with a_server() as place:

        async def anew_plain() -> None:
            async with NeuronClient(tls="off") as client:
                await client.generate(place, request, VERIFIER)

        plain = await per_second(anew_plain, round_trips // 4)
    cost = (1 / fresh - 1 / plain) * 1e3
    return [
        Row("signed round trips over TLS", rate, "/s", note=note),
        Row("the same, a new client and connection each", fresh, "/s", note=f"without TLS: {plain:,.0f} /s"),
        Row(
            "a TLS handshake, both ends", cost, "ms", note="what TLS adds to a new connection; P-256, pinned"
        ),
    ]


async def _httpx_row(place: Place, request: GenerateRequest, round_trips: int, note: str) -> Row:
    """The same round trip by the other client that was thought of; it is no dependency of the project."""
    name = "signed round trips, httpx client"
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{place.port}", timeout=10.0) as client:

        async def with_httpx() -> None:
            body = request.to_bytes()
            headers = http_auth.sign(
                VERIFIER,
                method="POST",
                path="/v1/generate",
                body=body,
                receiver_ss58=PROVER.ss58_address,
                nonce_ns=time.time_ns(),
            )
            headers["Content-Type"] = "application/json"
            reply = await client.post("/v1/generate", content=body, headers=headers)
            reply.raise_for_status()
            GenerateResponse.from_bytes(reply.content)

        return Row(name, await per_second(with_httpx, round_trips), "/s", note=note)


async def _stream_row(place: Place, client: NeuronClient, tokens: int) -> Row:
    """What one more token in a stream costs: a long stream against a short one."""

    async def seconds(count: int) -> float:
        best = float("inf")
        request = a_request(stream=True, max_tokens=count)
        for _ in range(5):
            began = time.perf_counter()
            await client.generate(place, request, VERIFIER)
            best = min(best, time.perf_counter() - began)
        return best

    short = await seconds(10)
    long = await seconds(tokens)
    cost = (long - short) / (tokens - 10) * 1e6
    return Row(
        "a streamed token, both ends", cost, "µs", note=f"one event each, {tokens:,} tokens in a stream"
    )


async def per_second(once: Callable[[], Awaitable[Any]], count: int) -> float:
    """How often this can be done in a second, ``AT_ONCE`` at once, after a warm-up."""
    for _ in range(AT_ONCE):
        await once()

    async def worker() -> None:
        for _ in range(count // AT_ONCE):
            await once()

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(worker)
    return (count // AT_ONCE) * AT_ONCE / (time.perf_counter() - began)


@asynccontextmanager
async def a_server(tls: ServerTls | None = None) -> AsyncIterator[Place]:
    """A gate with an engine behind it that answers at once."""
    answers: dict[tuple[bool, int], GenerateResponse] = {}

    async def handle(signed: SignedRequest, receive: Receive, send: Send) -> None:  # noqa: ARG001
        request = GenerateRequest.from_bytes(signed.body)
        key = request.stream, request.sampling.max_tokens
        if key not in answers:
            answers[key] = an_answer(request)
        if not request.stream:
            await send_json(send, 200, answers[key].to_bytes())
            return
        stream = EventStream(send)
        for token in answers[key].completion.token_ids:
            await stream.token(TokenEvent(token_ids=(token,), text=" word"))
        await stream.done(answers[key])

    plenty = Allowance(per_second=1e9, burst=1_000_000_000, concurrent=1_000)
    limits = Limits(per_hotkey=plenty, per_address=plenty)
    gate = Gate(
        receiver=Hotkey(PROVER.ss58_address),
        routes={"/v1/generate": Route("POST", handle, takes_body=True)},
        policy=lambda _hotkey: None,
        limits=limits,
        registry=CollectorRegistry(),
    )
    sock = bind("127.0.0.1", 0)
    async with anyio.create_task_group() as tasks:
        await tasks.start(
            lambda task_status: serve(gate, sock, limits=limits, tls=tls, task_status=task_status)
        )
        yield Place(bound_port(sock))
        tasks.cancel_scope.cancel()


def a_request(*, stream: bool, max_tokens: int) -> GenerateRequest:
    return GenerateRequest(
        salt="01" * 32,
        genesis="02" * 32,
        netuid=4,
        verifier=Hotkey(VERIFIER.ss58_address),
        prover=Hotkey(PROVER.ss58_address),
        attempt="0000000000000001",
        block=Block(1),
        block_hash="03" * 32,
        log_head="04" * 32,
        model="tiny",
        messages=(ChatMessage(role="user", content="A passage of some length. " * 40),),
        sampling=Sampling(seed="0000000000000007", temperature=0.8, max_tokens=max_tokens),
        stream=stream,
    )


def an_answer(request: GenerateRequest) -> GenerateResponse:
    count = request.sampling.max_tokens
    completion = Completion(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(TokenId(1_000 + number % 40_000) for number in range(count)),
        finish_reason="length",
        text=" word" * count,
        logprobs=tuple(-0.25 for _ in range(count)),
    )
    receipt = receipts.issue(
        request, completion, model_digest=Digest("06" * 32), issued_at=1, salt=bytes(32), signer=PROVER
    )
    return GenerateResponse(completion=completion, receipt=receipt)
