"""A client among provers that are down, slow, hostile or broken: each has an error of its own kind."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import time
from dataclasses import replace

import anyio
import pytest
from anyio.abc import ByteStream
from starlette.types import Receive, Send

from targon.protocol.messages import ProverStatus
from targon.transport import (
    BadResponse,
    Code,
    Deadlines,
    Disconnected,
    LocalFault,
    Refusal,
    Refused,
    SignedRequest,
    TimedOut,
    TransportError,
    Unreachable,
    send_json,
)
from tests.transport.world import (
    ALICE,
    PATIENT,
    PROVER,
    VERIFIER,
    Place,
    Script,
    a_client,
    a_gate,
    a_request,
    a_response,
    a_scripted_prover,
    ok,
    says,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]


async def ask(script: Script, deadlines: Deadlines = PATIENT) -> TransportError:
    """The error that a whole answer from this prover ends in."""
    async with a_scripted_prover(script) as prover, a_client(deadlines=deadlines) as client:
        with anyio.fail_after(60.0), pytest.raises(TransportError) as caught:
            await client.generate(prover, a_request(), ALICE)
    return caught.value


async def ask_bad(script: Script) -> BadResponse:
    error = await ask(script)
    assert isinstance(error, BadResponse)
    return error


async def test_a_whole_answer_comes_back_with_its_timing() -> None:
    request = a_request()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        assert signed.caller == VERIFIER
        assert signed.body == request.to_bytes()
        await anyio.sleep(0.05)
        await send_json(send, 200, a_response(request).to_bytes())

    async with a_gate(handler=handler) as gate, a_client() as client:
        began = time.monotonic()
        answer = await client.generate(gate.place, request, ALICE)
        took = time.monotonic() - began

    assert answer.response == a_response(request)
    assert answer.timing.tokens == 3
    assert answer.timing.bytes == len(a_response(request).to_bytes())
    assert 0.05 <= answer.timing.total_s <= took
    assert answer.timing.tokens_per_s is None
    assert answer.timing.overall_tokens_per_s == pytest.approx(3 / answer.timing.total_s)


async def test_the_status_of_a_prover_can_be_asked() -> None:
    status = ProverStatus(
        version="1", hotkey=PROVER, models=("tiny",), dialects=("greedy",), capacity=1, queued=0, running=0
    )

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await send_json(send, 200, status.to_bytes())

    async with a_gate(handler=handler) as gate, a_client() as client:
        assert await client.status(gate.place, PROVER, ALICE) == status


async def test_a_burst_of_requests_never_repeats_a_nonce() -> None:
    request = a_request()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await send_json(send, 200, a_response(request).to_bytes())

    async with a_gate(handler=handler) as gate, a_client(max_connections=8) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(client.generate, gate.place, request, ALICE)

        assert len(gate.handled) == 40


async def test_a_refusal_says_what_the_prover_said() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        raise Refusal(Code.UNKNOWN_MODEL, "not here", got="tiny", expected=["huge"], retry_after_s=7.0)

    async with a_gate(handler=handler) as gate, a_client() as client:
        with pytest.raises(Refused) as refused:
            await client.generate(gate.place, a_request(), ALICE)

    error = refused.value
    assert (error.status, error.code, error.message) == (404, "unknown_model", "not here")
    assert (error.got, error.expected) == ("tiny", ["huge"])
    assert error.retry_after_s == pytest.approx(8.0, abs=1.0)
    assert str(gate.place.port) in str(error)


async def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with a_client(deadlines=PATIENT) as client:
            with pytest.raises(Unreachable, match="no connection"):
                await client.generate(Place(port), a_request(), ALICE)


async def test_a_handshake_without_an_answer_is_unreachable() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = Place(full.getsockname()[1])
        # A listener that accepts nobody: its backlog holds one or two, and the next handshake hangs.
        with socket.socket() as first, socket.socket() as second:
            for filler in (first, second):
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", place.port))
            async with a_client(deadlines=replace(PATIENT, connect_s=0.5)) as client:
                with pytest.raises(Unreachable, match=r"within 0\.5 s"):
                    await client.generate(place, a_request(), ALICE)


@pytest.mark.parametrize("host", ["provers.example.org", "127.0.0.1/evil", ""])
async def test_an_axon_that_is_no_address_is_never_called(host: str) -> None:
    async with a_client() as client:
        with pytest.raises(Unreachable, match="not an address"):
            await client.generate(Place(80, host), a_request(), ALICE)


async def test_a_prover_that_sends_nothing_is_timed_out() -> None:
    async def silence(stream: ByteStream) -> None:
        await anyio.sleep(600)

    error = await ask(silence, replace(PATIENT, total_s=0.5))

    assert isinstance(error, TimedOut)
    assert error.phase == "total"


async def test_a_prover_that_stops_in_the_middle_is_timed_out() -> None:
    async def stalls(stream: ByteStream) -> None:
        await stream.send(ok(b"{", length=100))
        await anyio.sleep(600)

    error = await ask(stalls, replace(PATIENT, between_bytes_s=0.4))

    assert isinstance(error, TimedOut)
    assert error.phase == "between bytes"


async def test_a_prover_that_sends_bytes_slowly_for_ever_is_timed_out() -> None:
    async def drips(stream: ByteStream) -> None:
        await stream.send(ok(b"", length=60_000))
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.05)

    error = await ask(drips, replace(PATIENT, total_s=1.0))

    assert isinstance(error, TimedOut)
    assert (error.phase, error.after_s) == ("total", 1.0)


async def test_a_prover_that_sends_headers_for_ever_is_no_http() -> None:
    async def endless(stream: ByteStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")

    assert (await ask_bad(endless)).reason == "malformed"


async def test_a_prover_that_hangs_up_without_a_word_is_disconnected() -> None:
    assert isinstance(await ask(says()), Disconnected)


async def test_a_truncated_answer_is_disconnected() -> None:
    error = await ask(says(ok(b'{"completion":', length=500)))

    assert isinstance(error, Disconnected)
    assert "before the answer was whole" in str(error)


GARBAGE = {
    "no HTTP": (b"\x00\xff\x13garbage\r\n\r\n", "malformed"),
    "no JSON": (ok(b"<html>"), "malformed"),
    "no response": (ok(b'{"completion": 3}'), "malformed"),
    "nothing": (ok(b""), "malformed"),
    "a page": (ok(b"{}", "text/html"), "content_type"),
    "a stream": (ok(b"{}", "text/event-stream"), "content_type"),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        "redirect",
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "status"),
    "too much, declared": (ok(b"", length=10**12), "too_large"),
    "bad chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
        "malformed",
    ),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_a_bad_response_that_names_its_reason(what: str) -> None:
    data, reason = GARBAGE[what]

    assert (await ask_bad(says(data))).reason == reason


async def test_a_prover_that_sends_too_much_is_stopped() -> None:
    sent = 0

    async def flood(stream: ByteStream) -> None:
        nonlocal sent
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            await stream.send(b" " * 10_000)
            sent += 10_000

    error = await ask_bad(flood)

    assert error.reason == "too_large"
    assert sent < 20_000_000


async def test_a_compressed_answer_is_refused_unopened() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)

    error = await ask_bad(says(ok(bomb, extra="Content-Encoding: gzip\r\n")))

    assert error.reason == "encoding"


async def test_a_redirect_is_not_followed() -> None:
    async with a_gate() as gate:
        there = f"http://127.0.0.1:{gate.port}/v1/generate"
        script = says(f"HTTP/1.1 307 Moved\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode())

        assert (await ask_bad(script)).reason == "redirect"
        assert gate.handled == []


async def test_an_error_page_of_something_in_between_is_a_refusal_without_a_code() -> None:
    page = b"<html>\x1b[31m502 Bad Gateway</html>"
    error = await ask(says(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n" % len(page) + page))

    assert isinstance(error, Refused)
    assert (error.status, error.code) == (502, "unknown")
    assert "502 Bad Gateway" in error.message
    assert "\x1b" not in str(error)


async def test_an_error_answer_that_never_ends_is_read_only_so_far() -> None:
    async def endless(stream: ByteStream) -> None:
        await stream.send(b"HTTP/1.1 500 No\r\n\r\n")
        while True:
            await stream.send(b"x" * 5000)

    error = await ask(endless)

    assert isinstance(error, Refused)
    assert len(error.message) <= 300


async def test_an_error_body_with_the_wrong_types_is_still_a_refusal() -> None:
    body = json.dumps({"error": {"code": 7, "message": ["x"]}}).encode()
    error = await ask(says(b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body))

    assert isinstance(error, Refused)
    assert error.code == "unknown"


async def test_our_own_lack_of_sockets_is_never_held_against_a_prover() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with a_gate() as gate, a_client() as client:
        with socket.socket() as probe:
            lowest_free = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(LocalFault, match="Too many open files"):
                await client.generate(gate.place, a_request(), ALICE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_waiting_for_our_own_pool_is_not_held_against_a_prover() -> None:
    request = a_request()

    async def slow(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.9)
        await send_json(send, 200, a_response(request).to_bytes())

    deadlines = Deadlines(
        total_s=2.5
    )  # enough for each, if it doesn't count for how long it waited for the others
    async with a_gate(handler=slow) as gate, a_client(max_connections=1, deadlines=deadlines) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.generate, gate.place, request, ALICE)

        assert len(gate.handled) == 3
