"""The bounds of a connection that HTTP leaves open: slow headers, slow readers, idle ones, too many of them."""

from __future__ import annotations

import asyncio
import socket
from typing import ClassVar

from targon.transport.http import HttpConnection
from targon.transport.limits import Limits, address_key


class BoundedConnection(HttpConnection):
    """An HTTP/1.1 connection, and

    - a request's headers must be whole within ``header_timeout_s``, however steadily they trickle;
    - one on which nothing is asked is let go after ``idle_timeout_s``;
    - a client that does not take what it is sent is cut off after ``write_stall_s``;
    - there are at most ``max_connections`` connections, and ``max_connections_per_address`` from one address.
    """

    limits: ClassVar[Limits] = Limits()

    address: str | None = None
    """The client's address, as far as it counts as one client."""

    _due_s: float | None = None
    """When it is cut off, by the loop's clock, unless something comes first."""
    _trickling = False
    _alarm: asyncio.TimerHandle | None = None
    """Rings at ``_due_s`` or before: a request puts that off or off altogether without a new timer."""
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
        if raw is not None and self.limits.send_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.limits.send_buffer_bytes)
        self.awaits(headers=True, idle=False)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._due_s = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._stop_write_timer()
        super().connection_lost(exc)

    def awaits(self, *, headers: bool, idle: bool) -> None:
        if self.transport.is_closing():
            return
        if headers and self._trickling:
            return  # whoever trickles gets no more time by it
        self._trickling = headers
        if not headers and not idle:
            self._due_s = None
            return
        self._due_s = self.loop.time() + (
            self.limits.header_timeout_s if headers else self.limits.idle_timeout_s
        )
        if self._alarm is not None and self._alarm.when() > self._due_s:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._alarm = self.loop.call_at(self._due_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._due_s is None:
            return
        if self.loop.time() < self._due_s:
            self._alarm = self.loop.call_at(self._due_s, self._ring)
        elif self._trickling:
            self.transport.abort()
        else:
            self.transport.close()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _crowded(self) -> bool:
        if len(self.connections) > self.limits.max_connections:
            return True
        if self.address is None or self.limits.max_connections_per_address >= self.limits.max_connections:
            return False
        same = sum(1 for other in self.connections if getattr(other, "address", None) == self.address)
        return same > self.limits.max_connections_per_address


def bounded(limits: Limits) -> type[BoundedConnection]:
    """The connection class of a server with these limits."""
    members = {"limits": limits, "max_header_bytes": limits.max_header_bytes}
    return type("BoundedConnection", (BoundedConnection,), members)
