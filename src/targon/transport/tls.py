"""TLS between neurons: whom it is used with, a server's end, and a client that pins the hotkey it calls.

There is no authority and no name to check: a neuron is its hotkey, and shows it by a statement that the hotkey signed
(:mod:`targon.protocol.tls`). TLS 1.3 alone is spoken, so there is no renegotiation, compression or weak cipher to
switch off.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import Signer
from targon.protocol.tls import MAX_LIFETIME_S, named_peer
from targon.transport.certificates import UntrustedCertificate, check_certificate, make_certificate
from targon.transport.clock import Clock

Tls = Literal["auto", "on", "off"]
"""Whether TLS is spoken; ``auto``: with every address but those of this machine's loopback."""

LIFETIME_S = 30 * 86_400
"""How long a certificate of ours is valid. It is replaced at half of that."""
ALPN = "http/1.1"


def speaks_tls(tls: Tls, host: str) -> bool:
    """Whether TLS is spoken with a neuron that is called at this address.

    Raises:
        ValueError: if it must be judged by the address, and that is none.
    """
    return tls == "on" or (tls == "auto" and not _is_loopback(host))


class TlsEnd(Protocol):
    """What a server needs to speak TLS."""

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        ...


class ServerTls:
    """A server's end: a TLS key of its own making that the hotkey vouches for, replaced before it expires.

    The key never touches a disk, and ends with the process.

    Raises:
        ValueError: if the lifetime is longer than any client accepts.
    """

    def __init__(self, signer: Signer, *, clock: Clock | None = None, lifetime_s: int = LIFETIME_S) -> None:
        if not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise ValueError(
                f"lifetime_s: got {lifetime_s}, expected more than 0 and at most {MAX_LIFETIME_S}"
            )
        self._signer = signer
        self._clock = clock or Clock()
        self._lifetime_s = lifetime_s
        self._made = 0
        self._context = self.renew()

    def context(self) -> ssl.SSLContext:
        """For the next connection. Those that are open keep the certificate that they began with."""
        if not 0 <= self._now() - self._made < self._lifetime_s / 2:
            self.renew()
        return self._context

    def renew(self) -> ssl.SSLContext:
        """Make a new key and certificate for connections from now on."""
        now = self._now()
        pem = make_certificate(self._signer, not_before=now, not_after=now + self._lifetime_s)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # a resumed session would outlive the certificate
        context.set_alpn_protocols([ALPN])
        _load(context, pem)
        self._made, self._context = now, context
        return context

    def _now(self) -> int:
        return self._clock.now_ns() // 1_000_000_000


class NotPinned(ssl.SSLCertVerificationError):
    """Ends a handshake with somebody who can't show the hotkey that is called."""


class _PinnedPeer(ssl.SSLObject):
    """A client's TLS whose handshake isn't done before the peer has shown the hotkey that ``server_hostname`` names.

    Nothing is sent before that but the handshake's own first message.
    """

    now_ns: ClassVar[Callable[[], int]]

    def do_handshake(self) -> None:
        super().do_handshake()
        try:
            hotkey = named_peer(str(self.server_hostname))
            der = self.getpeercert(binary_form=True) or b""
            check_certificate(der, hotkey, now=type(self).now_ns() // 1_000_000_000)
        except (MalformedMessage, UntrustedCertificate) as error:
            raise NotPinned(str(error)) from error


def pinning_context(clock: Clock) -> ssl.SSLContext:
    """A client's context. Connections through it must name the hotkey (``peer_name``) as ``server_hostname``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The hotkey's statement takes the place of both: see _PinnedPeer.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    members: dict[str, Any] = {"now_ns": staticmethod(clock.now_ns)}
    context.sslobject_class = type("PinnedPeer", (_PinnedPeer,), members)
    context.sslsocket_class = _NoSocket
    return context


class _NoSocket(ssl.SSLSocket):
    """Blocking sockets would not check the pin."""

    @classmethod
    def _create(cls, *_: object, **__: object) -> _NoSocket:
        raise TypeError("got a blocking socket, expected asyncio: only there is the pin checked")


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context its key and certificate, through memory: OpenSSL reads them from a file only."""
    with os.fdopen(os.memfd_create("targon-tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
