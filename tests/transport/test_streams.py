"""Streamed answers: what arrives when, and streams that break the rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from starlette.types import Receive, Scope, Send

from targon.protocol.messages import GenerateRequest, GenerateResponse, TokenEvent
from targon.protocol.primitives import TokenId
from targon.transport import (
    Answer,
    BadResponse,
    Code,
    Deadlines,
    Disconnected,
    EventStream,
    Limits,
    Refusal,
    Refused,
    SignedRequest,
    TimedOut,
    TransportError,
    while_connected,
)
from targon.transport.served_request import ServedRequest, WriteFlow
from tests.transport.world import (
    ALICE,
    PATIENT,
    STREAM_HEAD,
    Script,
    a_client,
    a_gate,
    a_request,
    a_response,
    a_scripted_prover,
    connect,
    done_event,
    head,
    says,
    signed_headers,
    token_event,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]

REQUEST = a_request(stream=True)


def open_sockets() -> int:
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(1 for link in links if link.readlink().name.startswith("socket:"))


async def stream_three(request: GenerateRequest, send: Send, pause_s: float = 0.0) -> None:
    stream = EventStream(send)
    for token in (5, 6, 7):
        await stream.token(TokenEvent(token_ids=(TokenId(token),), text="x"))
        await anyio.sleep(pause_s)
    await stream.done(a_response(request))


async def ask(script: Script, deadlines: Deadlines = PATIENT) -> TransportError:
    async with a_scripted_prover(script) as prover, a_client(deadlines=deadlines) as client:
        with anyio.fail_after(60.0), pytest.raises(TransportError) as caught:
            async for _ in client.stream(prover, REQUEST, ALICE):
                pass
    return caught.value


async def test_a_stream_yields_its_tokens_and_ends_with_the_signed_answer() -> None:
    came = anyio.Event()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        stream = EventStream(send)
        await stream.token(TokenEvent(token_ids=(TokenId(5),), text="x"))
        await came.wait()
        for token in (6, 7):
            await anyio.sleep(0.05)
            await stream.token(TokenEvent(token_ids=(TokenId(token),), text="x"))
        await stream.done(a_response(REQUEST))

    async with a_gate(handler=handler) as gate, a_client() as client:
        began, parts = time.monotonic(), []
        async for part in client.stream(gate.place, REQUEST, ALICE):
            parts.append(part)
            came.set()
        took = time.monotonic() - began
    *tokens, answer = parts

    assert [part.token_ids for part in tokens if isinstance(part, TokenEvent)] == [(5,), (6,), (7,)]
    assert isinstance(answer, Answer)
    assert answer.response == a_response(REQUEST)
    timing = answer.timing
    assert timing.first_token_s is not None
    assert timing.last_token_s is not None
    assert 0.09 <= timing.last_token_s - timing.first_token_s <= took
    assert timing.tokens_per_s == pytest.approx(2 / (timing.last_token_s - timing.first_token_s))
    assert timing.last_token_s <= timing.total_s <= took


async def test_generate_collects_a_stream_where_the_request_asks_for_one() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await stream_three(REQUEST, send)

    async with a_gate(handler=handler) as gate, a_client() as client:
        for _ in range(5):
            answer = await client.generate(gate.place, REQUEST, ALICE)
            assert answer.response == a_response(REQUEST)


async def test_a_stream_read_to_its_end_leaves_its_connection_for_the_next() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await stream_three(REQUEST, send)

    async with a_gate(handler=handler) as gate, a_client() as client:
        before = open_sockets()
        for _ in range(4):
            await client.generate(gate.place, REQUEST, ALICE)

        # One connection has two ends, and both are here.
        assert open_sockets() - before == 2


async def test_small_events_are_sent_at_once() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await stream_three(REQUEST, send)

    async with a_gate(handler=handler) as gate, a_client() as client:
        answers = [await client.generate(gate.place, REQUEST, ALICE) for _ in range(10)]

    # Held back until the last was acknowledged, nearly every one would take 40 ms.
    assert min(answer.timing.total_s for answer in answers[1:]) < 0.03


async def test_a_request_for_a_whole_answer_cannot_be_streamed() -> None:
    async with a_client() as client:
        with pytest.raises(ValueError, match="stream"):
            await anext(client.stream(a_gate, a_request(), ALICE))  # type: ignore[arg-type]


async def test_a_refusal_before_the_first_token_has_a_status() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        raise Refusal(Code.QUEUE_FULL, "busy", retry_after_s=1.0)

    async with a_gate(handler=handler) as gate, a_client() as client:
        with pytest.raises(Refused) as refused:
            await client.generate(gate.place, REQUEST, ALICE)

    assert (refused.value.status, refused.value.code) == (503, "queue_full")


async def test_a_failure_in_the_middle_of_a_stream_is_an_error_event() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        stream = EventStream(send)
        await stream.token(TokenEvent(token_ids=(TokenId(5),), text="x"))
        refusal = Refusal(Code.ENGINE_UNAVAILABLE, "broke")
        await stream.error(refusal)
        raise refusal

    async with a_gate(handler=handler) as gate, a_client() as client:
        with pytest.raises(Refused) as refused:
            await client.generate(gate.place, REQUEST, ALICE)

        assert (refused.value.status, refused.value.code) == (200, "engine_unavailable")
        assert gate.refusals("engine_unavailable") == 1


async def test_hanging_up_cancels_the_work() -> None:
    cancelled = anyio.Event()

    async def work(send: Send) -> None:
        stream = EventStream(send)
        try:
            while True:
                await stream.token(TokenEvent(token_ids=(TokenId(5),), text="x"))
                await anyio.sleep(0.01)
        finally:
            cancelled.set()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await while_connected(receive, partial(work, send))

    async with a_gate(handler=handler) as gate, a_client() as client:
        parts = client.stream(gate.place, REQUEST, ALICE)
        await anext(parts)
        await parts.aclose()

        with anyio.fail_after(30.0):
            await cancelled.wait()


async def test_work_that_ended_is_not_taken_for_abandoned() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        work: Callable[[], Awaitable[None]] = partial(stream_three, REQUEST, send)
        await while_connected(receive, work)

    async with a_gate(handler=handler) as gate, a_client() as client:
        for _ in range(20):
            await client.generate(gate.place, REQUEST, ALICE)

        assert gate.registry.get_sample_value("targon_requests_abandoned_total") == 0


BROKEN = {
    "no events": ([b"hello\n\n"], "malformed"),
    "no JSON": ([b"data: hello\n\n"], "malformed"),
    "an unknown event": ([b"event: surprise\ndata: {}\n\n"], "malformed"),
    "no response at the end": ([b"event: done\ndata: {}\n\n"], "malformed"),
    "other tokens than were signed": (
        [token_event(5), token_event(9), done_event(a_response(REQUEST))],
        "inconsistent",
    ),
    "fewer tokens than were signed": ([token_event(5), done_event(a_response(REQUEST))], "inconsistent"),
    "more tokens than were asked for": ([token_event(*range(9))], "too_large"),
    "more log-probabilities than tokens": (
        [b'data: {"token_ids":[5],"text":"x","logprobs":[-0.5,-0.5]}\n\n', done_event(a_response(REQUEST))],
        "inconsistent",
    ),
    "a whole answer": ([a_response(REQUEST).to_bytes()], None),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_stream_that_breaks_the_rules_is_a_bad_response(what: str) -> None:
    pieces, reason = BROKEN[what]
    error = await ask(says(STREAM_HEAD, *pieces))

    if reason is None:
        assert isinstance(error, Disconnected)
    else:
        assert isinstance(error, BadResponse)
        assert error.reason == reason


def with_logprobs(logprobs: tuple[float, ...] | None) -> GenerateResponse:
    response = a_response(REQUEST)
    completion = response.completion.model_copy(update={"logprobs": logprobs})
    return response.model_copy(update={"completion": completion})


@pytest.mark.parametrize(
    ("signed", "equal"),
    [((-0.5, -1.5, -2.5), True), ((-0.5, -1.5, -2.0), False), ((-1.5, -0.5, -2.5), False), (None, True)],
)
async def test_log_probabilities_that_were_streamed_are_those_that_are_signed(
    signed: tuple[float, ...] | None, equal: bool
) -> None:
    async def handler(signed_request: SignedRequest, receive: Receive, send: Send) -> None:
        stream = EventStream(send)
        await stream.token(TokenEvent(token_ids=(TokenId(5), TokenId(6)), text="xx", logprobs=(-0.5, -1.5)))
        await stream.token(TokenEvent(token_ids=(TokenId(7),), text="x", logprobs=(-2.5,)))
        await stream.done(with_logprobs(signed))

    async with a_gate(handler=handler) as gate, a_client() as client:
        if equal:
            answer = await client.generate(gate.place, REQUEST, ALICE)
            assert answer.response.completion.logprobs == signed
        else:
            with pytest.raises(BadResponse, match="log-probabilities") as refused:
                await client.generate(gate.place, REQUEST, ALICE)
            assert refused.value.reason == "inconsistent"


async def test_events_that_are_ready_together_leave_together_and_no_other_waits() -> None:
    pieces: list[bytes] = []

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        stream = EventStream(send)
        for tokens in ((4,), (5, 6), (7,)):
            for token in tokens:
                await stream.token(TokenEvent(token_ids=(TokenId(token),), text="x"))
            await anyio.sleep(0.2)
        await stream.done(a_response(REQUEST))

    body = REQUEST.to_bytes()
    async with a_gate(handler=handler) as gate, await connect(gate.port) as stream:
        await stream.send(head(signed_headers(body)) + body)
        with anyio.fail_after(30):
            while not pieces or not pieces[-1].endswith(b"0\r\n\r\n"):
                pieces.append(await stream.receive())

    came = [[token for token in range(4, 8) if b'"token_ids":[%d]' % token in piece] for piece in pieces[:3]]
    assert came == [[4], [5, 6], [7]]
    assert b"event: done" not in pieces[2]


async def test_what_is_said_first_leaves_before_anybody_else_has_a_turn() -> None:
    written: list[bytes] = []
    before: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        before.append(len(written))
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        before.append(len(written))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    request = ServedRequest(Written(written))
    request.scope = {"method": "GET", "http_version": "1.1"}
    await request.run(app)

    assert before == [0, 1]
    assert written[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert written[0].endswith(b"5\r\nfirst\r\n")


class Written:
    """A connection that keeps what is written to it."""

    def __init__(self, written: list[bytes]) -> None:
        self.loop = asyncio.get_running_loop()
        self.writes = WriteFlow()
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)

    def resume_reading(self) -> None:
        pass

    def answered(self, request: ServedRequest) -> None:
        pass

    def break_off(self, last_words: bytes | None) -> None:
        raise AssertionError("it was answered")


async def test_a_stream_that_ends_without_its_receipt_is_disconnected() -> None:
    error = await ask(says(STREAM_HEAD, token_event(5), token_event(6)))

    assert isinstance(error, Disconnected)


async def test_a_stream_that_does_not_begin_is_timed_out() -> None:
    async def silence(stream: ByteStream) -> None:
        await anyio.sleep(600)

    error = await ask(silence, replace(PATIENT, first_byte_s=0.5))

    assert isinstance(error, TimedOut)
    assert error.phase == "first byte"


async def test_a_stream_that_pauses_for_too_long_is_timed_out() -> None:
    async def pauses(stream: ByteStream) -> None:
        await stream.send(STREAM_HEAD + token_event(5))
        await anyio.sleep(600)

    error = await ask(pauses, replace(PATIENT, between_bytes_s=0.3))

    assert isinstance(error, TimedOut)
    assert error.phase == "between bytes"


async def test_a_stream_of_comments_for_ever_is_timed_out() -> None:
    async def comments(stream: ByteStream) -> None:
        await stream.send(STREAM_HEAD)
        while True:
            await stream.send(b": still here\n\n")
            await anyio.sleep(0.02)

    error = await ask(comments, replace(PATIENT, total_s=1.0))

    assert isinstance(error, TimedOut)
    assert error.phase == "total"


async def test_a_flood_of_events_is_stopped() -> None:
    async def flood(stream: ByteStream) -> None:
        await stream.send(STREAM_HEAD)
        while True:
            await stream.send(b": " + b"x" * 10_000 + b"\n")

    error = await ask(flood)

    assert isinstance(error, BadResponse)
    assert error.reason == "too_large"


async def test_a_client_that_does_not_read_its_stream_is_cut_off() -> None:
    ended = anyio.Event()

    async def work(send: Send) -> None:
        stream = EventStream(send)
        try:
            while True:
                await stream.token(TokenEvent(token_ids=(TokenId(5),), text="x" * 10_000))
        finally:
            ended.set()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await while_connected(receive, partial(work, send))

    async with (
        a_gate(handler=handler, limits=Limits(write_stall_s=0.3)) as gate,
        await connect(gate.port) as stream,
    ):
        await stream.send(head(signed_headers()) + b"{}")
        with anyio.fail_after(30.0):
            await ended.wait()
