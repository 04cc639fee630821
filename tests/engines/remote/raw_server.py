"""A server of bytes: each connection is handled by a function of the test, below HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
"""Of an answer that ends where its connection does."""

Handle = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self._reader = reader
        self._writer = writer
        self.number = number
        """Counted from 0."""

    async def request(self) -> bytes:
        """The next request, whole; nothing if there is none."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head.lower())
            return head + await self._reader.readexactly(int(length.group(1)) if length else 0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def say(self, *parts: bytes) -> None:
        """Send each part in a TCP segment of its own, as far as that can be had."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def answer(self, body: bytes) -> None:
        """Send a whole answer, and keep the connection."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.say(head.encode() + body)

    async def left(self) -> None:
        """Wait until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1 << 16):
                pass

    def reset(self) -> None:
        """Close the connection in the rudest way."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@asynccontextmanager
async def handling(handle: Handle) -> AsyncIterator[str]:
    """The address of a server that listens until the block ends; each connection is closed behind its handler."""
    tasks: set[asyncio.Task[None]] = set()
    numbers = iter(range(1 << 30))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(Connection(reader, writer, next(numbers)))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*parts: bytes) -> Handle:
    """Answers every request with these bytes, each part in a segment of its own, and ends the connection."""

    async def handle(connection: Connection) -> None:
        if await connection.request():
            await connection.say(*parts)

    return handle


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Data in pieces, cut at some places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if b > a]
