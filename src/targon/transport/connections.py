"""The bounds that the HTTP server under us leaves open: slow headers, slow readers, many connections."""

from __future__ import annotations

import asyncio
import socket
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from targon.transport.limits import Limits, address_key


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, and

    - a request's headers must be whole within ``header_timeout_s``, however steadily they trickle;
    - a client that does not take what it is sent is cut off after ``write_stall_s``;
    - there are at most ``max_connections`` connections, and ``max_connections_per_address`` from one address.
    """

    limits: ClassVar[Limits] = Limits()

    address: str | None = None
    """The client's address, as far as it counts as one client."""

    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = address_key(self.client[0]) if self.client is not None else None
        if self._crowded():
            transport.abort()
            return
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # A peer that vanished, or keeps its window shut, is the kernel's to give up on.
            timeout_ms = int(self.limits.write_stall_s * 1000)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_headers()
        else:
            self._stop_header_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        if self._header_timer is None and not self.transport.is_closing():
            self._header_timer = self.loop.call_later(self.limits.header_timeout_s, self.transport.abort)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _crowded(self) -> bool:
        if len(self.connections) > self.limits.max_connections:
            return True
        if self.address is None:
            return False
        same = sum(1 for other in self.connections if getattr(other, "address", None) == self.address)
        return same > self.limits.max_connections_per_address


def bounded(limits: Limits) -> type[BoundedConnection]:
    """The connection class of a server with these limits."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})
