"""Connections over TLS, under the same bounds as plain ones, from the moment they are accepted.

asyncio would show us a connection only once its handshake is done: until then it would count nowhere, and who never
ends a handshake would hold as many as he likes. So each is taken as it comes, counted, and then led into TLS.
"""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from typing import ClassVar

from targon.transport.connections import BoundedConnection
from targon.transport.limits import Limits
from targon.transport.refusals import Code, Refusal
from targon.transport.tls import TlsEnd

CLOSING_S = 5
"""How long a client may take to say its goodbye."""
WRITE_BUFFER_BYTES = 1 << 16

_HANDSHAKE = 22
"""The first byte of every TLS connection: a handshake record."""


class TlsConnection(BoundedConnection):
    """A bounded connection over TLS. The handshake and the first request's headers share one deadline.

    ``connection_made`` comes twice: for the connection as it was accepted, and for TLS over it.
    """

    tls: ClassVar[TlsEnd]

    _handshake: asyncio.Future[None] | None = None
    _secured = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self._handshake is None:
            super().connection_made(transport)
            return
        self._secured = True
        # It is counted, and its deadline runs, since it was accepted.
        super(BoundedConnection, self).connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            super().data_received(data)
        elif data[0] == _HANDSHAKE:
            self._begin(data)
        else:
            self._refuse_plain()

    def _begin(self, data: bytes) -> None:
        """Lead the connection into TLS. ``data`` is what it said first."""
        self._handshake = self.loop.create_future()
        self._handshake.add_done_callback(self._handshake_ended)
        plain = self.transport
        wire = _TlsWire(
            self.loop,
            self,
            self.tls.context(),
            self._handshake,
            server_side=True,
            ssl_shutdown_timeout=CLOSING_S,
        )
        plain.set_protocol(wire)
        wire.connection_made(plain)
        for start in range(0, len(data), wire.max_size):
            piece = data[start : start + wire.max_size]
            wire.get_buffer(len(piece))[: len(piece)] = piece
            wire.buffer_updated(len(piece))

    def _handshake_ended(self, handshake: asyncio.Future[None]) -> None:
        error = handshake.exception()
        if not self._secured:
            # Nobody else tells us that the connection is gone: to TLS it has not begun.
            self.connection_lost(error if isinstance(error, Exception) else None)

    def _refuse_plain(self) -> None:
        refusal = Refusal(
            Code.TLS_REQUIRED,
            "this port speaks TLS; call it over TLS (--neuron.tls on the caller's side, or --axon.tls off here)",
            got="plain HTTP, or no HTTP at all",
            expected="TLS 1.3",
        )
        body = refusal.body()
        head = (
            f"HTTP/1.1 {refusal.status} Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class _TlsWire(SSLProtocol):
    """asyncio's TLS with a read buffer for a record or two: 256 KiB each would be a way to fill our memory."""

    max_size = 1 << 15


def bounded_tls(limits: Limits, tls: TlsEnd) -> type[TlsConnection]:
    """The connection class of a server with these limits and this TLS."""
    members = {"limits": limits, "max_header_bytes": limits.max_header_bytes, "tls": tls}
    return type("TlsConnection", (TlsConnection,), members)
