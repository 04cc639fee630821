"""One request that a server was sent, and its answer: the two ends that an ASGI application holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Scope

HIGH_WATER_BYTES: Final = 65_536
"""Of a body that its handler has not asked for yet; then nothing more is read."""

TOGETHER_BYTES: Final = 16_384
"""Of an answer's pieces that wait to go out together."""

_STATUS: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}
_BODILESS: Final = (204, 304)
MALFORMED: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 30\r\n"
    b"connection: close\r\n\r\nInvalid HTTP request received."
)
_BROKE: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n"
    b"connection: close\r\n\r\nInternal Server Error"
)
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}

_logger = logging.getLogger("targon.transport")


class WriteFlow:
    """Paused while what was written and not sent yet is as much as the transport should hold."""

    __slots__ = ("_resumed", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._resumed: asyncio.Event | None = None

    def pause(self) -> None:
        self.paused = True
        self._resumed = asyncio.Event()

    def resume(self) -> None:
        self.paused = False
        if self._resumed is not None:
            self._resumed.set()

    async def resumed(self) -> None:
        if self._resumed is not None:
            await self._resumed.wait()


class Carrier(Protocol):
    """The connection, as its requests know it."""

    loop: asyncio.AbstractEventLoop
    writes: WriteFlow

    def write(self, data: bytes) -> None: ...

    def resume_reading(self) -> None: ...

    def answered(self, request: ServedRequest) -> None:
        """The answer was written to its end."""

    def break_off(self, last_words: bytes | None) -> None:
        """There will be no answer, or no end of one."""


class ServedRequest:
    """One request and its answer. Calling it is ASGI's ``receive``; :meth:`send` is ASGI's ``send``."""

    def __init__(self, connection: Carrier) -> None:
        self._connection = connection
        self.scope: Scope = {}
        self.keep_alive = True
        self.expects_continue = False
        self.complete = False
        """Whether the request is here to its last byte."""
        self.answered = False
        """Whether the answer was written to its last byte."""
        self.gone = False
        """Whether the client left."""
        self._body = bytearray()
        self._news = asyncio.Event()
        self._farewell: Callable[[], None] | None = None
        self._head: bytes | None = None
        self._chunked = False
        self._without_body = False
        self._left: int | None = None
        self._began = False
        self._unsent = bytearray()
        self._flushing = False

    # -- the request -----------------------------------------------------------------------------------

    def more(self, data: bytes) -> bool:
        """Take a piece of the body; whether more of it had better wait."""
        if not self.answered:
            self._body += data
            self._news.set()
        return len(self._body) > HIGH_WATER_BYTES

    def end(self) -> None:
        self.complete = True
        self._news.set()

    def leave(self) -> None:
        """The connection is gone."""
        self.gone = True
        self._news.set()
        if self._farewell is not None and not self.answered:
            self._farewell()

    def refuse(self) -> None:
        """Its body is broken: nobody can tell where it ends."""
        if not self._began:
            self._connection.write(MALFORMED)
        self.leave()

    def whole_body(self) -> bytes | None:
        """The body, where all of it is here already and nothing of it was received; else None."""
        if not self.complete or self.gone:
            return None
        body, self._body = bytes(self._body), bytearray()
        self._news.clear()
        self._connection.resume_reading()  # else it would not be seen to leave
        return body

    def on_leave(self, tell: Callable[[], None] | None) -> None:
        """Have it told, at once, if the client leaves before it is answered."""
        self._farewell = tell
        if tell is not None and self.gone:
            tell()

    async def __call__(self) -> Message:
        if self.expects_continue and not self._began:
            self.expects_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._news.is_set() and not self.gone and not self.answered:
            self._connection.resume_reading()
            await self._news.wait()
        self._news.clear()
        if self.gone or self.answered:
            return _DISCONNECT
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    # -- the answer ------------------------------------------------------------------------------------

    async def run(self, app: ASGIApp) -> None:
        """Have the request answered."""
        try:
            await app(self.scope, self, self.send)
        except Exception:
            _logger.exception("an application broke")
        finally:
            if not self.answered:
                self._connection.break_off(None if self._began else _BROKE)

    async def send(self, message: Message) -> None:
        """Write what ASGI's message says; the head of an answer goes out with the first piece of its body.

        Raises:
            RuntimeError: if it doesn't follow what was sent before.
        """
        connection = self._connection
        if connection.writes.paused and not self.gone:
            await connection.writes.resumed()
        if self.gone:
            return
        kind = message["type"]
        if self._head is None and kind == "http.response.start":
            self._start(message)
        elif self._head is not None and kind == "http.response.body" and not self.answered:
            self._piece(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"got {kind!r}, which can't follow what was sent before")

    def _start(self, message: Message) -> None:
        status = message["status"]
        lines = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in message.get("headers", ()):
            lower = name.lower()
            if lower == b"content-length":
                self._left = int(value)
            elif lower == b"connection" and value.lower() == b"close":
                self.keep_alive = False
                continue
            elif lower == b"transfer-encoding":
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        self._without_body = self.scope["method"] == "HEAD" or status in _BODILESS
        if self._left is None and not self._without_body:
            self._chunked = self.scope["http_version"] == "1.1"
            self.keep_alive &= self._chunked
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        if self._head.count(b"\n") != len(lines) or self._head.count(b"\r") != len(lines):
            raise RuntimeError("a header of the answer holds a line break")

    def _piece(self, body: bytes, *, last: bool) -> None:
        """Take a piece. The first one goes out at once: somebody waits for it. Later ones that are ready together go
        out together, as soon as the loop is free to: who sends many without waiting in between pays for one write."""
        if not self._without_body:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (last and self._left):
                    raise RuntimeError("the answer's body is not as long as its Content-Length says")
            self._unsent += body
        if last:
            self._flush(last=True)
            self.answered = True
            self._news.set()
            self._connection.answered(self)
        elif not self._began or len(self._unsent) > TOGETHER_BYTES:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._connection.loop.call_soon(self._flush)

    def _flush(self, *, last: bool = False) -> None:
        self._flushing = False
        if self.answered or self.gone:
            return
        body, self._unsent = bytes(self._unsent), bytearray()
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                body += b"0\r\n\r\n"
        if not self._began:
            self._began = True
            body = (self._head or b"") + body
        self._connection.write(body)
