"""What a client makes of answers that are no HTTP, more than one, or cut and framed in every allowed way."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import ByteStream

from targon.transport import BadResponse, Disconnected, TransportError
from tests.transport.world import (
    ALICE,
    PATIENT,
    Script,
    a_client,
    a_request,
    a_response,
    a_scripted_prover,
    ok,
    says,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]

BODY = a_response(a_request()).to_bytes()
TOP = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def ask(script: Script) -> TransportError | None:
    """What comes of a request to a prover that does as the script says; None: the answer."""
    async with a_scripted_prover(script) as prover, a_client(deadlines=PATIENT) as client:
        with anyio.fail_after(60.0):
            try:
                answer = await client.generate(prover, a_request(), ALICE)
            except TransportError as error:
                return error
    assert answer.response == a_response(a_request())
    return None


WELL_FRAMED = {
    "by its length": ok(BODY),
    "in chunks": TOP + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "by the connection's end": TOP + b"Connection: close\r\n\r\n" + BODY,
    "after an interim answer": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(BODY),
    "and a second one": ok(BODY) + ok(BODY),
}


@pytest.mark.parametrize("how", WELL_FRAMED)
async def test_an_answer_may_be_framed(how: str) -> None:
    assert await ask(says(WELL_FRAMED[how])) is None


@pytest.mark.parametrize("how", WELL_FRAMED)
async def test_an_answer_may_come_byte_by_byte(how: str) -> None:
    async def bytes_one_by_one(stream: ByteStream) -> None:
        for byte in WELL_FRAMED[how][:60]:
            await stream.send(bytes([byte]))
        await stream.send(WELL_FRAMED[how][60:])

    assert await ask(bytes_one_by_one) is None


NO_HTTP = {
    "a length and chunks": TOP + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": TOP + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": TOP + b"Content-Length: -2\r\n\r\n{}",
    "a length of nothing": TOP + b"Content-Length: \r\n\r\n{}",
    "a line that ends in LF": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n{}",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "another version": b"HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": TOP + b"X: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "a change of protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nx",
    "headers beyond any measure": TOP + b"X: " + b"x" * 40_000 + b"\r\nX: " + b"x" * 40_000,
    "interim answers beyond any measure": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3_000,
}


@pytest.mark.parametrize("what", NO_HTTP)
async def test_what_is_no_http_is_a_bad_response(what: str) -> None:
    error = await ask(says(NO_HTTP[what], pause_s=0.1))

    assert isinstance(error, BadResponse)
    assert error.reason == "malformed"


async def test_a_broken_chunk_after_good_ones_is_a_bad_response() -> None:
    chunk = b"%x\r\n%b\r\n" % (10, BODY[:10])
    error = await ask(says(TOP + b"Transfer-Encoding: chunked\r\n\r\n" + chunk, b"zz\r\n", pause_s=0.05))

    assert isinstance(error, BadResponse)
    assert error.reason == "malformed"


async def test_chunks_that_never_end_are_a_broken_connection() -> None:
    chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    error = await ask(says(TOP + b"Transfer-Encoding: chunked\r\n\r\n" + chunk))

    assert isinstance(error, Disconnected)


@pytest.mark.parametrize("late", [0.0, 0.1])
async def test_what_nobody_asked_for_is_nobodys_answer(late: float) -> None:
    """A second answer on a connection must not be taken for the answer to the next request."""
    asked = 0
    said = anyio.Event()

    async def twice(stream: ByteStream) -> None:
        nonlocal asked
        asked += 1
        await stream.send(ok(BODY))
        await anyio.sleep(late)
        await stream.send(ok(b'{"forged": true}'))
        said.set()
        await anyio.sleep(600)

    async with a_scripted_prover(twice) as prover, a_client(deadlines=PATIENT) as client:
        for _ in range(2):
            answer = await client.generate(prover, a_request(), ALICE)
            assert answer.response == a_response(a_request())
            await said.wait()
            await anyio.sleep(0.1)  # it has come by then

    assert asked == 2
