"""Requests to an engine's address: connections of our own for plain HTTP, and what they do when answers are odd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from targon.engines.errors import EngineUnavailable
from targon.engines.remote.calls import Calls, Part
from targon.engines.remote.web import BrokenOff, NoConnection, Unanswered, Web

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Raw:
    """A server that answers with bytes, and remembers what it was sent on which connection."""

    def __init__(self, answer: Callable[[int, bytes], bytes]) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                length = next(
                    (int(one[15:]) for one in head.split(b"\r\n") if one.startswith(b"Content-Length:")), 0
                )
                self.bodies.append(await reader.readexactly(length))
                answer = self._answer(len(self.heads), head)
                writer.write(answer)
                await writer.drain()
                if not answer or b"Connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw(answer: Callable[[int, bytes], bytes]) -> AsyncIterator[tuple[Raw, str]]:
    server = Raw(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        listening.close()
        server.hang_up()
        await asyncio.sleep(0.01)


async def body_of(web: Web, route: str = "/v1/models") -> tuple[int, bytes]:
    response = await web.send("GET", route, None, 5.0)
    try:
        parts = []
        while part := await response.part(5.0):
            parts.append(part)
        return response.status, b"".join(parts)
    finally:
        response.close()


class Anything(Part):
    pass


async def test_requests_follow_one_another_on_one_connection_with_the_key_and_the_path() -> None:
    async with raw(lambda *_: OK) as (server, url), Web(f"{url}/behind/a-proxy/", "the-key") as web:
        assert [await body_of(web) for _ in range(3)] == [(200, b"{}")] * 3
        await (await web.send("POST", "/v1/completions", {"text": "ä"}, 5.0)).part(5.0)
    assert server.connections == 1
    assert server.heads[0].startswith(b"GET /behind/a-proxy/v1/models HTTP/1.1\r\nHost: 127.0.0.1:")
    assert all(b"\r\nAuthorization: Bearer the-key\r\n" in head for head in server.heads)
    assert json.loads(server.bodies[3]) == {"text": "ä"}


async def test_an_answer_that_was_not_read_to_its_end_ends_its_connection() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning"
    async with raw(lambda *_: long) as (server, url), Web(url) as web:
        for _ in range(2):
            response = await web.send("GET", "/", None, 5.0)
            assert await response.part(5.0) == b"beginning"
            response.close()
            response.close()
    assert server.connections == 2


async def test_a_redirect_is_followed() -> None:
    def answer(_: int, head: bytes) -> bytes:
        if head.startswith(b"GET /old"):
            return b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n"
        return OK

    async with raw(answer) as (server, url), Web(url) as web:
        assert await body_of(web, "/old") == (200, b"{}")
    assert [head.split()[1] for head in server.heads] == [b"/old", b"/old", b"/new"]


async def test_a_connection_that_was_let_go_meanwhile_is_made_anew_once() -> None:
    def answer(number: int, _: bytes) -> bytes:
        return b"" if number == 2 else OK

    async with raw(answer) as (server, url), Web(url) as web:
        calls = Calls(web, timeout_s=5.0, max_requests=1, max_queue=1)
        await calls.get("/", Anything)
        await calls.get("/", Anything)
    assert (len(server.heads), server.connections) == (3, 2)


async def test_an_answer_that_has_begun_is_never_asked_for_again() -> None:
    async with raw(lambda *_: b"HTTP/1.1 200 OK\r\nConnection: close\r\n") as (server, url), Web(url) as web:
        calls = Calls(web, timeout_s=5.0, max_requests=1, max_queue=1)
        with pytest.raises(EngineUnavailable, match="broke off"):
            await calls.get("/", Anything)
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", Unanswered, "closed"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", BrokenOff, "."),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", BrokenOff, "gzip"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", BrokenOff, "larger than"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", BrokenOff, "."),
    ],
)
async def test_what_is_no_answer_breaks_off(answer: bytes, error: type[Exception], words: str) -> None:
    async with raw(lambda *_: answer) as (_, url), Web(url) as web:
        with pytest.raises(BrokenOff, match=words) as raised:
            await body_of(web)
    assert type(raised.value) is error


async def test_nobody_listening_is_told_in_the_systems_words() -> None:
    async with raw(lambda *_: OK) as (_, url):
        pass
    async with Web(url) as web:
        with pytest.raises(NoConnection, match="Connection refused"):
            await web.send("GET", "/", None, 5.0)


async def test_a_name_that_does_not_exist_is_told() -> None:
    async with Web("http://no-such-host.invalid:1") as web:
        with pytest.raises(NoConnection):
            await web.send("GET", "/", None, 30.0)


async def test_an_answer_that_does_not_come_times_out() -> None:
    silent: list[asyncio.StreamWriter] = []

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    listening = await asyncio.start_server(never, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with Web(f"http://127.0.0.1:{port}") as web:
        with pytest.raises(TimeoutError):
            await web.send("GET", "/", None, 0.05)
    listening.close()
    for writer in silent:
        writer.close()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", ["", "/a%20b", "/../x"])
async def test_every_address_is_reached_whoever_speaks_for_us(path: str) -> None:
    async with raw(lambda *_: OK) as (server, url), Web(url + path) as web:
        assert await body_of(web) == (200, b"{}")
    assert len(server.heads) == 1


class Number(Part):
    n: int


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ([b'{"n":1}', b'{"n":2}'], [1, 2]),
        ([b'{"n":1}'], [1]),
        ([], []),
        ([b'{"n":1},{"n":2}', b'{"n":3}'], None),  # two in one are none
        ([b'{"n":1', b'"m":2}'], None),  # nor are two halves one
        ([b'{"n":1}', b'{"n":"x"}'], None),
        ([b'{"n":1}', b""], None),
    ],
)
async def test_answers_that_came_together_are_read_as_each_would_be(
    batch: list[bytes], got: list[int] | None
) -> None:
    calls = Calls(Web("http://127.0.0.1:1"), timeout_s=1.0, max_requests=1, max_queue=1)
    if got is None:
        with pytest.raises(EngineUnavailable, match="its answer to /route cannot be read"):
            calls.parse_all(Number, batch, "/route")
    else:
        assert [one.n for one in calls.parse_all(Number, batch, "/route")] == got
