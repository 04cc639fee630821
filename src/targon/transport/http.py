"""HTTP/1.1 as a server speaks it: requests in, one at a time and in order, each answered by an ASGI application.

The parser is llhttp (``httptools``), as strict as it comes; what it lets through nevertheless is refused here. Nobody
must be able to send what another reader of the same bytes would take for two requests, or for another one:

* a body has one length, said once: ``Content-Length`` in digits, or ``Transfer-Encoding: chunked``, never both;
* lines end in CR LF, no header continues on a second line, there is no space before a colon;
* HTTP/1.1 or 1.0, and with 1.1 exactly one ``Host``; no other protocol is changed to (``Upgrade``, ``CONNECT``).

Whoever breaks these gets a plain 400, and the connection ends. One that sends more than one request at once is answered
in order; of more than ``MAX_WAITING`` the rest is refused, and it is not read from while much of them waits.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections import deque
from typing import Any, ClassVar, Final

import httptools
from starlette.types import ASGIApp

from targon.transport.served_request import HIGH_WATER_BYTES, MALFORMED, ServedRequest, WriteFlow

_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"))
"""Of HTTP; the parser knows those of RTSP and of others, too."""

MAX_WAITING: Final = 16
"""Requests of one connection that are here and not answered: a read can hold thousands, each of a few bytes."""


class Malformed(Exception):
    """Bytes that are no request of ours."""


class HttpConnection(asyncio.Protocol):
    """One connection. Takes uvicorn's place for its protocol classes, and is made by its server.

    Subclasses bound it: they are told what is waited for (:meth:`awaits`).
    """

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:  # noqa: ANN401, ARG002
        if not config.loaded:
            config.load()
        self.loop: asyncio.AbstractEventLoop = _loop or asyncio.get_running_loop()
        self._app: ASGIApp = config.loaded_app
        self._tasks: set[asyncio.Task[None]] = server_state.tasks
        self.connections: set[Any] = server_state.connections
        self.transport: asyncio.Transport
        self.client: tuple[str, int] | None = None
        self.writes: WriteFlow
        self._server: tuple[str, int] | None = None
        self._scheme = "http"
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[ServedRequest] = deque()
        """Requests that are here and not answered, in order; the first one is being answered."""
        self._coming: ServedRequest | None = None
        """The request of which something is still to come."""
        self._ending = False
        self._reading = True
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = False
        self._framing_bytes = 0
        """Of a body, since its last piece: sizes of chunks, and trailers."""
        self._ahead_bytes = 0
        """Of requests that came while another one was being answered."""

    max_header_bytes: ClassVar[int] = 16_384

    def awaits(self, *, headers: bool, idle: bool) -> None:
        """What is waited for from now on: a request's headers, or, while idle, anything; else it is our turn."""

    # -- the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections.add(self)
        self.transport = transport
        self.writes = WriteFlow()
        peer, us = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None
        self._server = (str(us[0]), int(us[1])) if isinstance(us, tuple) else None
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.connections.discard(self)
        self.writes.resume()
        for exchange in self._waiting:
            exchange.leave()
        if self._coming is not None:
            self._coming.leave()
        self._parser = None

    def eof_received(self) -> None:
        """A client that is done sending is done."""

    def pause_writing(self) -> None:
        self.writes.pause()

    def resume_writing(self) -> None:
        self.writes.resume()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return  # after "Connection: close", or after what we refused
        if self._in_head or self._coming is None:
            self._head_bytes += len(data)
        self._framing_bytes += len(data)
        if len(self._waiting) > 1:
            self._ahead_bytes += len(data)
        try:
            self._parser.feed_data(data)
            outside = self._head_bytes if self._in_head else self._framing_bytes if self._coming else 0
            if outside > self.max_header_bytes:
                raise Malformed
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, Malformed):
            self._refuse()
            return
        if self._ahead_bytes > HIGH_WATER_BYTES:
            self._pause_reading()
        if not self._waiting and self._coming is None:
            self.awaits(headers=True, idle=False)

    def write(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def resume_reading(self) -> None:
        if not self._reading and self._ahead_bytes <= HIGH_WATER_BYTES and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """End when what is being answered is answered."""
        if not self._waiting:
            self.transport.close()
        for exchange in self._waiting:
            exchange.keep_alive = False

    # -- the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: nothing that was checked with the headers may be said again after them
        self._headers.append((name.lower(), value))
        if len(self._headers) * 2 > self.max_header_bytes:
            raise Malformed  # no header is shorter

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = self._framing_bytes = 0
        if self._ending:
            return  # nobody is answered after the last one
        if len(self._waiting) >= MAX_WAITING:
            raise Malformed
        parser = self._parser
        version = parser.get_http_version()
        exchange = ServedRequest(self)
        self._check(version, exchange)
        exchange.keep_alive = version == "1.1" and parser.should_keep_alive()
        raw_path, _, query = self._url.partition(b"?")
        path = raw_path.decode("latin-1")
        exchange.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self._server,
            "client": self.client,
            "scheme": self._scheme,
            "root_path": "",
            "headers": self._headers,
            "state": {},
            "method": parser.get_method().decode("ascii"),
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
        }
        self._coming = exchange
        self.awaits(headers=False, idle=False)
        self._waiting.append(exchange)
        if len(self._waiting) == 1:
            self._answer(exchange)

    def _check(self, version: str, exchange: ServedRequest) -> None:
        """Refuse what the parser lets through and we don't."""
        parser = self._parser
        if version not in ("1.1", "1.0") or parser.get_method() not in _METHODS or parser.should_upgrade():
            raise Malformed
        hosts = 0
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                raise Malformed
            elif name == b"expect":
                exchange.expects_continue = value.lower() == b"100-continue" and version == "1.1"
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise Malformed

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        if self._coming is not None and self._coming.more(body):
            self._pause_reading()

    def on_message_complete(self) -> None:
        exchange, self._coming = self._coming, None
        if exchange is not None:
            exchange.end()
            self._ending = self._ending or not exchange.keep_alive

    # -- answering -------------------------------------------------------------------------------------

    def _answer(self, exchange: ServedRequest) -> None:
        task = self.loop.create_task(exchange.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, request: ServedRequest) -> None:
        """An answer was written to its end: go on with the next request, or end."""
        self._waiting.popleft()
        if len(self._waiting) <= 1:
            self._ahead_bytes = 0
        if not request.keep_alive or not request.complete:
            self._ending = True
            self.transport.close()
            return
        self.resume_reading()
        if self._waiting:
            self._answer(self._waiting[0])
        else:
            self.awaits(headers=False, idle=True)

    def break_off(self, last_words: bytes | None) -> None:
        """End without an answer, or in the middle of one."""
        self._ending = True
        if not self.transport.is_closing():
            if last_words is not None:
                self.transport.write(last_words)
            self.transport.close()

    def _refuse(self) -> None:
        """Answer what is no request. What came before it and is being answered comes first, and is the last."""
        self._ending = True
        if self._coming is not None and self._coming is self._waiting[0]:
            self._coming.refuse()
            self.transport.close()
        elif self._waiting:
            self._waiting[-1].keep_alive = False
        else:
            self.write(MALFORMED)
            self.transport.close()

    def _pause_reading(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()
