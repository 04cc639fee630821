"""Connections of a client: made, kept, and used again; one request at a time on each.

What comes back is parsed by llhttp (``httptools``), as strictly as it can. Nothing is followed, decompressed or decoded
here, and about ``HIGH_WATER_BYTES`` are held of an answer at most: who reads it says how much of it may come.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

import httptools

KEEP_ALIVE_S: Final = 10.0
"""An idle connection is let go after this: well before a server would close it under a request."""
MAX_HEAD_BYTES: Final = 32_768
"""Of an answer's status line and headers, and of whatever is no body between two pieces of it or after it."""
HIGH_WATER_BYTES: Final = 1 << 18

_WITHOUT_BODY: Final = (204, 304)

Key = tuple[str, int, str | None]
"""Address, port, and the peer's name in TLS."""


class Malformed(Exception):
    """Bytes that are no answer in HTTP."""


class Broken(Exception):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """One connection, and the answer that comes on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._closed = False
        self._reading = True
        self._body: list[bytes] = []
        self._held = 0
        self._head_bytes = 0
        self._framing_bytes = 0
        """Since the last piece of the body."""
        self._head_taken = False
        self._interim = False
        self._until_closed = False
        self._reusable = False
        self.complete = True
        """Whether an answer is here to its last byte."""
        self.status = 0
        """Of the answer; 0: its headers are not here yet."""
        self.headers: dict[str, str] = {}
        """By name in lower case; of one that came twice, the first."""
        self.idle_since_s = 0.0
        self._requests = 0

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._reusable and self.complete and not self._closed

    # -- one request -----------------------------------------------------------------------------------

    @property
    def unanswered(self) -> bool:
        """Whether nothing at all came back for this request."""
        return not self.status and self._head_bytes == 0

    @property
    def stale(self) -> bool:
        """Whether it was kept from an earlier request and nothing came back for this one: it may have ended before."""
        return self._requests > 1 and self.unanswered

    def send(self, request: bytes) -> None:
        """Send a request; its answer comes by :meth:`head` and :meth:`piece`."""
        self._requests += 1
        self._parser = httptools.HttpResponseParser(self)
        self._error = Broken("it was closed") if self._closed else None
        self._body, self._held, self._head_bytes, self._framing_bytes = [], 0, 0, 0
        self._head_taken = False
        self._interim = self._until_closed = self._reusable = self.complete = False
        self.status, self.headers = 0, {}
        if self._transport is not None and not self._closed:
            self._transport.write(request)

    async def head(self, wait_s: float) -> None:
        """Wait for the answer's status and headers.

        Raises:
            TimeoutError: if they did not come in time.
            Malformed: if what came is no HTTP.
            Broken: if the connection ended first.
        """
        if not self.status:
            await self._news(wait_s)
        self._head_taken = True

    async def piece(self, wait_s: float) -> bytes:
        """What has come of the answer's body and was not taken yet; waits until there is some; empty at its end.

        What frames it (sizes of chunks, trailers) is no news: it ends no wait, and gives no more time.

        Raises:
            TimeoutError, Malformed, Broken: as :meth:`head`.
        """
        if not self._body and not self.complete:
            await self._news(wait_s)
        taken = self._body
        self._body, self._held = [], 0
        self._resume_reading()
        return taken[0] if len(taken) == 1 else b"".join(taken)

    async def _news(self, wait_s: float) -> None:
        if self._error is None:
            waiter = self._waiter = self._loop.create_future()
            timer = self._loop.call_later(max(0.0, wait_s), _give_up, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._error is not None and not self._body:
            raise self._error

    def abort(self) -> None:
        """Hang up."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # -- the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self.complete:
            return
        if self._until_closed and exc is None and self._error is None:
            self.complete = True
        elif self._error is None:
            self._error = Broken(str(exc) if exc is not None and str(exc) else "it was closed")
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self.complete or self._error is not None:
            self.abort()  # nobody asked for anything
            return
        if not self.status:
            self._head_bytes += len(data)
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if not self.complete and self._framing_bytes > MAX_HEAD_BYTES:
                what = "what frames the body is" if self.status else "the headers are"
                raise Malformed(f"{what} larger than {MAX_HEAD_BYTES} bytes")
        except httptools.HttpParserUpgrade:
            self._fail(Malformed("it changes to another protocol"))
        except httptools.HttpParserCallbackError as error:
            self._fail(
                error.__context__ if isinstance(error.__context__, Malformed) else Malformed(str(error))
            )
        except (httptools.HttpParserError, Malformed) as error:
            self._fail(Malformed(str(error)))
        else:
            if self._held > HIGH_WATER_BYTES and self._reading and self._transport is not None:
                self._reading = False
                self._transport.pause_reading()
        if self._error is not None or self.complete or (self._body if self._head_taken else self.status):
            self._wake()

    # -- the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self._reusable = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete and not self.status:  # trailers say nothing that is asked for
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if self._parser.get_http_version() not in ("1.1", "1.0") or status < 100:
            raise Malformed("it is no HTTP/1.1")
        if status < 200:
            self._interim, self.headers = True, {}
            return
        self.status = status
        self._until_closed = (
            status not in _WITHOUT_BODY
            and "content-length" not in self.headers
            and "transfer-encoding" not in self.headers
        )

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._body.append(body)
            self._held += len(body)
            self._framing_bytes = 0

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif not self.complete:
            self.complete = True
            self._reusable = self._parser.should_keep_alive()

    # -- inside ----------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        if not self.complete:
            self._error = error
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume_reading(self) -> None:
        if not self._reading and not self._closed and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class Pool:
    """Connections by whom they lead to.

    Args:
        context: of connections over TLS, each of which names its peer; None: there are none.
        keep_s: for how long an idle connection is kept.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, keep_s: float = KEEP_ALIVE_S) -> None:
        self._context = context
        self._keep_s = keep_s
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Key, list[Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._busy: set[Connection] = set()

    async def take(self, key: Key, connect_s: float, *, fresh: bool = False) -> Connection:
        """A connection of one's own, to be given back by :meth:`give`: the one used last, or a new one.

        Args:
            fresh: a new one only; those that were kept are let go.

        Raises:
            OSError: if none can be made; ``TimeoutError`` without a number if it takes too long.
        """
        kept = self._idle.get(key, [])
        now = self._loop.time()
        while kept:
            connection = kept.pop()
            if not fresh and connection.reusable and now - connection.idle_since_s < self._keep_s:
                break
            connection.abort()
        else:
            self._idle.pop(key, None)
            host, port, peer = key
            async with asyncio.timeout(connect_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop),
                    host,
                    port,
                    ssl=None if peer is None else self._context,
                    server_hostname=peer,
                )
        self._busy.add(connection)
        return connection

    def give(self, key: Key, connection: Connection) -> None:
        """Keep a connection for the next request, if its answer was read to its end; else hang up."""
        self._busy.discard(connection)
        if not connection.reusable:
            connection.abort()
            return
        connection.idle_since_s = self._loop.time()
        self._idle.setdefault(key, []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keep_s, self._let_go)

    async def aclose(self) -> None:
        """Hang up everywhere."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [*self._busy, *(one for kept in self._idle.values() for one in kept)]:
            connection.abort()
        self._idle.clear()
        self._busy.clear()
        await asyncio.sleep(0)  # the loop tells each that it is gone

    def _let_go(self) -> None:
        """End what lies idle for too long."""
        self._sweep = None
        oldest_s = self._loop.time() - self._keep_s
        for key, kept in list(self._idle.items()):
            for connection in kept:
                if connection.idle_since_s <= oldest_s:
                    connection.abort()
            self._idle[key] = [connection for connection in kept if connection.reusable]
            if not self._idle[key]:
                del self._idle[key]
        if self._idle:
            first_s = min(kept[0].idle_since_s for kept in self._idle.values())
            self._sweep = self._loop.call_at(first_s + self._keep_s, self._let_go)
