"""Bytes that two readers could take for different requests are refused; what is one request is answered, in order."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import ByteStream
from starlette.types import Receive, Send

from targon.transport import Limits, SignedRequest, send_json
from targon.transport.http import MAX_WAITING
from tests.transport.world import a_gate, connect, head, post, read_reply, send_raw, signed_headers

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]

PROBE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/generate HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
END = b"\r\n"

AMBIGUOUS = {
    "a length and chunks": POST + b"Content-Length: 3\r\n" + CHUNKED + END + b"0\r\n\r\n",
    "chunks and a length": POST + CHUNKED + b"Content-Length: 3\r\n" + END + b"0\r\n\r\n",
    "the same length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n" + END + b"abc",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n" + END + b"abc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n" + END + b"abc",
    "a length with a sign": POST + b"Content-Length: +3\r\n" + END + b"abc",
    "a length in hex": POST + b"Content-Length: 0x3\r\n" + END + b"abc",
    "a length of nothing": POST + b"Content-Length:\r\n" + END,
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n" + END,
    "chunked twice": POST + CHUNKED + CHUNKED + END + b"0\r\n\r\n",
    "another coding before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n" + END + b"0\r\n\r\n",
    "another coding after chunked": POST + b"Transfer-Encoding: chunked, gzip\r\n" + END + b"0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n" + END,
    "nearly chunked": POST + b"Transfer-Encoding: xchunked\r\n" + END + b"0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /v1/generate HTTP/1.0\r\n" + CHUNKED + END + b"0\r\n\r\n",
    "a header that goes on in the next line": PROBE + b"X-A: b\r\n c\r\n" + END,
    "a space before the colon": PROBE + b"Content-Length : 0\r\n" + END,
    "a space before the first header": b"GET /healthz HTTP/1.1\r\n Host: a\r\n" + END,
    "lines that end in LF": b"GET /healthz HTTP/1.1\nHost: a\n\n",
    "one line that ends in LF": b"GET /healthz HTTP/1.1\r\nHost: a\nX-A: b\r\n" + END,
    "a CR in a value": PROBE + b"X-A: b\rc\r\n" + END,
    "a NUL in a value": PROBE + b"X-A: b\x00c\r\n" + END,
    "no name": PROBE + b": b\r\n" + END,
    "no colon": PROBE + b"X-A\r\n" + END,
    "no host": b"GET /healthz HTTP/1.1\r\n" + END,
    "two hosts": PROBE + b"Host: b\r\n" + END,
    "a space in the path": b"GET /healthz x HTTP/1.1\r\nHost: a\r\n" + END,
    "no version": b"GET /healthz\r\n" + END,
    "another version": b"GET /healthz HTTP/1.2\r\nHost: a\r\n" + END,
    "another protocol": b"DESCRIBE /healthz RTSP/1.0\r\nHost: a\r\n" + END,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a change of protocol": PROBE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + END,
    "a tunnel": b"CONNECT other:1 HTTP/1.1\r\nHost: other:1\r\n" + END,
    "a method of its own": b"FETCH /healthz HTTP/1.1\r\nHost: a\r\n" + END,
}


@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_what_could_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(what: str) -> None:
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(AMBIGUOUS[what] + PROBE + END)
        said = await everything(stream)

        assert said.startswith(b"HTTP/1.1 400 ")
        assert said.count(b"HTTP/1.1") == 1
        assert gate.handled == []
        assert (await send_raw(gate.port, PROBE + END)).status == 200


BROKEN_BODIES = {
    "a chunk that is longer than it says": b"3\r\nabcX\r\n0\r\n\r\n",
    "a chunk that ends in LF": b"3\nabc\n0\n\n",
    "a chunk of no size": b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a length among the trailers": b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("what", BROKEN_BODIES)
async def test_a_body_whose_chunks_are_broken_never_reaches_a_handler(what: str) -> None:
    headers = signed_headers(b"abc") | {"Transfer-Encoding": "chunked"}
    del headers["Content-Length"]
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(head(headers))
        await anyio.sleep(0.05)
        await stream.send(BROKEN_BODIES[what] + PROBE + END)
        said = await everything(stream)

        assert said.startswith(b"HTTP/1.1 400 ")
        assert said.count(b"HTTP/1.1") == 1
        assert gate.handled == []


async def test_requests_that_come_together_are_answered_one_by_one_in_order() -> None:
    running = most = 0

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.02)
        running -= 1
        await send_json(send, 200, signed.body)

    bodies = [b'"%d"' % number for number in range(5)]
    async with a_gate(handler=handler) as gate, await connect(gate.port) as stream:
        await stream.send(b"".join(head(signed_headers(body)) + body for body in bodies))
        data = b""
        with anyio.fail_after(30):
            while data.count(b"HTTP/1.1 200") < 5 or not data.endswith(bodies[-1]):
                data += await stream.receive()

    assert [piece.partition(b"\r\n\r\n")[2] for piece in data.split(b"HTTP/1.1 200 OK\r\n")[1:]] == bodies
    assert most == 1


async def test_what_follows_a_last_request_is_not_answered() -> None:
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(PROBE + b"Connection: close\r\n" + END + PROBE + END)

        said = await everything(stream)

    assert said.count(b"HTTP/1.1 200") == 1
    assert said.count(b"HTTP/1.1") == 1


async def test_garbage_after_a_request_ends_the_connection_after_its_answer() -> None:
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(PROBE + END + b"\x00\x01 garbage\r\n\r\n")

        said = await everything(stream)

    assert said.startswith(b"HTTP/1.1 200")
    assert said.count(b"HTTP/1.1") == 1


async def test_a_body_that_waits_to_be_asked_for_is_asked_for() -> None:
    body = b'{"a": 1}'
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(head(signed_headers(body) | {"Expect": "100-continue"}))
        assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(body)

        assert (await read_reply(stream)).status == 200


async def test_a_request_in_single_bytes_is_a_request() -> None:
    body = b'{"a": 1}'
    async with a_gate() as gate, await connect(gate.port) as stream:
        for byte in head(signed_headers(body)) + body:
            await stream.send(bytes([byte]))

        assert (await read_reply(stream)).status == 200
        assert gate.handled[0].body == body


async def test_a_client_of_http_1_0_has_its_answer_until_the_end_of_the_connection() -> None:
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(b"GET /healthz HTTP/1.0\r\n\r\n")

        said = await everything(stream)

    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said
    assert said.endswith(b'{"status":"ok"}')


async def test_many_small_headers_are_refused_as_large_ones_are() -> None:
    async with a_gate(limits=Limits(max_header_bytes=2000)) as gate:
        many = {f"X-{number}": "y" for number in range(400)}

        assert (await post(gate.port, headers=signed_headers() | many)).status == 431


async def test_no_more_than_a_few_requests_of_one_connection_wait() -> None:
    """One read can hold thousands, and each costs more memory here than it took bytes to send."""
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send((PROBE + END) * 2_000)
        said = await everything(stream)

    assert said.count(b"HTTP/1.1 200 ") == MAX_WAITING
    assert said.count(b"HTTP/1.1") == MAX_WAITING
    assert said.count(b"connection: close") == 1


async def test_a_client_that_leaves_is_seen_to_leave_though_it_had_sent_another_request() -> None:
    began, left = anyio.Event(), anyio.Event()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with a_gate(handler=handler) as gate:
        async with await connect(gate.port) as stream:
            await stream.send(head(signed_headers(b"{}")) + b"{}")
            with anyio.fail_after(30):
                await began.wait()
            await stream.send(PROBE + END)
            await anyio.sleep(0.05)
        with anyio.fail_after(30):
            await left.wait()


async def test_requests_that_wait_with_large_bodies_are_not_read_on() -> None:
    release = anyio.Event()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await release.wait()
        await send_json(send, 200, b"{}")

    body = b'"%b"' % (b"x" * 60_000)
    async with a_gate(handler=handler) as gate, await connect(gate.port) as stream:
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(12):
                await stream.send(head(signed_headers(body)) + body)
                sent += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            await anyio.sleep(0.2)
            release.set()
            with anyio.fail_after(30):
                data = b""
                while data.count(b"HTTP/1.1 200") < 12:
                    data += await stream.receive()

    assert len(gate.handled) == 12


@pytest.mark.parametrize("trailers", [b"X: ab\r\n" * 140, b"a" * 1_000], ids=["many", "one"])
async def test_trailers_that_never_end_are_refused(trailers: bytes) -> None:
    headers = signed_headers(b"abc") | {"Transfer-Encoding": "chunked"}
    del headers["Content-Length"]
    async with a_gate() as gate, await connect(gate.port) as stream:
        await stream.send(head(headers) + b"3\r\nabc\r\n0\r\nX: ")
        await anyio.sleep(0.05)
        for _ in range(17):  # no more, or what was not read any more would take the answer's place
            await stream.send(trailers)
            await anyio.sleep(0.002)
        said = await everything(stream)

        assert said.startswith(b"HTTP/1.1 400 ")
        assert gate.handled == []


async def test_trailers_add_no_headers_to_a_request() -> None:
    scopes = []

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        scopes.append(signed)
        await send_json(send, 200, b"{}")

    headers = signed_headers(b"abc") | {"Transfer-Encoding": "chunked"}
    del headers["Content-Length"]
    async with a_gate(handler=handler) as gate:
        broken = dict(headers)
        missing = next(name for name in broken if "ignature" in name)
        value = broken.pop(missing)
        late = f"{missing}: {value}\r\n".encode()
        reply = await send_raw(gate.port, head(broken) + b"3\r\nabc\r\n0\r\n" + late + END)

        assert reply.status in (400, 401)
        assert scopes == []


async def test_an_idle_connection_is_let_go() -> None:
    async with a_gate(limits=Limits(idle_timeout_s=1)) as gate, await connect(gate.port) as stream:
        await stream.send(PROBE + END)
        assert (await read_reply(stream)).status == 200

        with anyio.fail_after(30):
            assert await everything(stream) == b""


async def everything(stream: ByteStream, within_s: float = 30.0) -> bytes:
    """All that is said until the connection ends."""
    data = b""
    with anyio.fail_after(within_s):
        try:
            while True:
                data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return data
