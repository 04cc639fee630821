"""Streams as users hold them: many, each timed by token, or left alone, or never read.

The client reads bytes and looks for events in them, and no more, so that its own work is small beside what it times.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from benchmarks.gateway.answer import NAME, TOKENS
from benchmarks.gateway.others import Place

STREAM_S = 60.0
"""A stream that is timed takes no longer."""
OPENING_AT_ONCE = 64
SMALL_BUFFER = 4_096
"""Bytes that the system keeps for a client that doesn't read."""


def request(place: Place, max_tokens: int) -> bytes:
    """A request for a stream, as bytes."""
    body = json.dumps(
        {
            "model": NAME,
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
    )
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{place.port}\r\nauthorization: Bearer {place.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Connection(asyncio.Protocol):
    """One connection, which asks again when it is told to."""

    def __init__(self) -> None:
        self.tokens: list[float] = []
        """When each token came, by ``time.perf_counter``."""
        self.status = b""
        self.began = asyncio.Event()
        """The first token is here, or none will come."""
        self.done = asyncio.Event()
        self._left = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def ask(self, data: bytes) -> None:
        self.tokens, self.status, self._left = [], b"", b""
        self.began.clear()
        self.done.clear()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.status:
            self.status = data[9:12]
            if self.status != b"200":
                self._end()
                return
        *events, self._left = (self._left + data).split(b"\n\n")
        for event in events:
            if b'"content":"' in event and b'"content":""' not in event:
                self.tokens.append(now)
                self.began.set()
            elif b"data: [DONE]" in event or b'data: {"error"' in event:
                self._end()

    def _end(self) -> None:
        self.began.set()
        self.done.set()


async def connect(place: Place, small: bool = False) -> Connection:
    sock = socket.socket()
    sock.setblocking(False)
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", place.port))
    _, connection = await loop.create_connection(Connection, sock=sock)
    return connection


@dataclass
class Timed:
    """What an open loop saw."""

    first: list[float] = field(default_factory=list)
    """Seconds from when a request was due to its first token."""
    last: list[float] = field(default_factory=list)
    """Seconds from the first token to the last."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between two tokens."""
    failed: int = 0


async def open_loop(place: Place, *, per_second: float, seconds: float) -> Timed:
    """Ask at fixed times, whatever has been answered by then."""
    timed, idle = Timed(), list[Connection]()
    data = request(place, TOKENS)

    async def one(due: float) -> None:
        connection = idle.pop() if idle else await connect(place)
        connection.ask(data)
        try:
            async with asyncio.timeout(STREAM_S):
                await connection.done.wait()
        except TimeoutError:
            timed.failed += 1
            connection.transport.abort()
            return
        tokens = connection.tokens
        if len(tokens) != TOKENS:
            timed.failed += 1
            connection.transport.abort()
            return
        idle.append(connection)
        timed.first.append(tokens[0] - due)
        timed.last.append(tokens[-1] - tokens[0])
        timed.gaps.extend(after - before for before, after in pairwise(tokens))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.create_task(one(max(due, time.perf_counter()) if wait > 0 else due))
    for connection in idle:
        connection.transport.close()
    return timed


class Held:
    """Streams that are open."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.refused = 0

    async def open(self, place: Place, count: int, *, max_tokens: int, read: bool = True) -> None:
        """Open so many more, each up to its first token (or, if they aren't to be read, up to its request)."""
        room = asyncio.Semaphore(OPENING_AT_ONCE)
        data = request(place, max_tokens)

        async def one() -> None:
            async with room:
                connection = await connect(place, small=not read)
                if not read:
                    connection.transport.pause_reading()
                connection.ask(data)
                if read:
                    async with asyncio.timeout(STREAM_S):
                        await connection.began.wait()
                if read and not connection.tokens:
                    self.refused += 1
                    connection.transport.abort()
                else:
                    self.connections.append(connection)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    @property
    def open_now(self) -> int:
        return sum(not each.done.is_set() for each in self.connections)

    def close(self) -> None:
        for connection in self.connections:
            connection.transport.abort()


@contextmanager
def held() -> Iterator[Held]:
    """Streams that are closed when the block ends."""
    streams = Held()
    try:
        yield streams
    finally:
        streams.close()
