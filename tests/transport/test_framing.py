"""An answer is the same wherever the network cuts it, and what frames it is neither a piece of it nor its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import replace

import anyio
import pytest
from anyio.abc import ByteStream

from targon.http import Connection
from targon.protocol.messages import TokenEvent
from targon.transport import Answer, BadResponse, Deadlines, TimedOut, TransportError
from tests.transport.world import (
    ALICE,
    PATIENT,
    Script,
    a_client,
    a_request,
    a_response,
    a_scripted_prover,
    done_event,
    token_event,
)

pytestmark = pytest.mark.anyio

REQUEST = a_request(stream=True)
TOP = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = TOP + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"one, two, three"

FRAMED = {
    "by its length": TOP + b"Content-Length: 15\r\n\r\n" + BODY,
    "in chunks": CHUNKED + b"3\r\none\r\n5\r\n, two\r\n7\r\n, three\r\n0\r\n\r\n",
    "in chunks of one byte": CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "in chunks with extensions": CHUNKED + b'8;a="b"\r\none, two\r\n7;c\r\n, three\r\n0;d\r\n\r\n',
    "in chunks with trailers": CHUNKED + b"f\r\none, two, three\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n",
    "by the connection's end": TOP + b"Connection: close\r\n\r\n" + BODY,
    "after an interim answer": b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"
    + TOP
    + b"Content-Length: 15\r\n\r\n"
    + BODY,
}


async def body_of(pieces: Iterable[bytes]) -> bytes:
    """What a reader has of an answer that comes in these pieces, and is told of each before the next one."""
    connection = Connection(asyncio.get_running_loop())
    connection.send(b"")

    async def read() -> bytes:
        await connection.head(5.0)
        body = b""
        while piece := await connection.piece(5.0):
            body += piece
        return body

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return await reader


@pytest.mark.parametrize("how", FRAMED)
async def test_an_answer_may_come_byte_by_byte(how: str) -> None:
    assert await body_of(bytes([byte]) for byte in FRAMED[how]) == BODY


@pytest.mark.parametrize("how", FRAMED)
async def test_an_answer_may_be_cut_anywhere(how: str) -> None:
    whole = FRAMED[how]
    for cut in range(1, len(whole)):
        assert await body_of((whole[:cut], whole[cut:])) == BODY, f"cut after {cut} bytes"


async def test_an_answer_in_chunks_may_be_cut_anywhere_twice() -> None:
    whole, top = FRAMED["in chunks"], len(CHUNKED)
    for first, second in itertools.combinations(range(top, len(whole)), 2):
        assert await body_of((whole[:first], whole[first:second], whole[second:])) == BODY


async def ask(script: Script, deadlines: Deadlines = PATIENT) -> list[tuple[int, ...]] | TransportError:
    """The tokens of a stream whose prover does as the script says, or how it ended instead."""
    async with a_scripted_prover(script) as prover, a_client(deadlines=deadlines) as client:
        with anyio.fail_after(60.0):
            try:
                parts = [part async for part in client.stream(prover, REQUEST, ALICE)]
            except TransportError as error:
                return error
    assert isinstance(parts[-1], Answer)
    return [part.token_ids for part in parts if isinstance(part, TokenEvent)]


async def test_a_chunk_whose_size_is_sent_before_its_data_is_a_chunk() -> None:
    async def sizes_first(stream: ByteStream) -> None:
        await stream.send(CHUNKED)
        for event in (*(token_event(token) for token in (5, 6, 7)), done_event(a_response(REQUEST))):
            for piece in (b"%x\r\n" % len(event), event, b"\r\n"):
                await stream.send(piece)
                await anyio.sleep(0.01)
        await stream.send(b"0\r\n\r\n")

    assert await ask(sizes_first) == [(5,), (6,), (7,)]


@pytest.mark.parametrize("sent", [b"X-A: b\r\n" * 100, b"a" * 1_000], ids=["many trailers", "one trailer"])
async def test_trailers_that_never_end_are_no_http(sent: bytes) -> None:
    async def trails(stream: ByteStream) -> None:
        await stream.send(CHUNKED + b"1\r\n\n\r\n0\r\nX: ")
        for _ in range(1_000):
            await stream.send(sent)

    error = await ask(trails)

    assert isinstance(error, BadResponse)
    assert error.reason == "malformed"
    assert "what frames the body is larger than 32768 bytes" in str(error)


async def test_what_frames_an_answer_puts_no_deadline_off() -> None:
    async def extends(stream: ByteStream) -> None:
        await stream.send(CHUNKED + b"1;")
        while True:
            await stream.send(b"a")
            await anyio.sleep(0.05)

    error = await ask(extends, replace(PATIENT, between_bytes_s=0.3))

    assert isinstance(error, TimedOut)
    assert error.phase == "between bytes"
