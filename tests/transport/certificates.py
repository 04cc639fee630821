"""Certificates of every kind, for tests of those who must tell them apart; and servers that show them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID

from targon.protocol import tls
from tests.transport.world import BOB, CHARLIE, Place

NOW = 1_800_000_000
DAY = 86_400
STATEMENT = x509.ObjectIdentifier(tls.STATEMENT_OID)


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_info(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Certificate:
    """A certificate of Bob's that is right in every way, but for what is changed."""

    key: Any = field(default_factory=a_key)
    signed_by: Any = None
    """Another key that signs the certificate."""
    not_before: int = NOW
    not_after: int = NOW + 30 * DAY
    statement: bytes | None = None
    """Instead of Bob's own, for this key and these times."""
    oid: x509.ObjectIdentifier = STATEMENT
    extras: tuple[tuple[x509.ObjectIdentifier, bytes], ...] = ()

    def build(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "neuron")])
        statement = self.statement
        if statement is None:
            statement = tls.issue(BOB, key_info(self.key), self.not_before, self.not_after)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(7)
            .not_valid_before(datetime.fromtimestamp(self.not_before, UTC))
            .not_valid_after(datetime.fromtimestamp(self.not_after, UTC))
            .add_extension(x509.UnrecognizedExtension(self.oid, statement), critical=False)
        )
        for oid, value in self.extras:
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        signer = self.signed_by or self.key
        return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256())

    def der(self) -> bytes:
        return self.build().public_bytes(Encoding.DER)

    def context(self) -> ssl.SSLContext:
        """A server's context that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with TemporaryDirectory() as folder:
            file = Path(folder) / "chain.pem"
            file.write_bytes(self.build().public_bytes(Encoding.PEM) + private)
            context.load_cert_chain(file)
        return context


def replayed() -> Certificate:
    """Bob's statement, copied from his certificate into one over a key of the thief's."""
    return Certificate(statement=tls.issue(BOB, key_info(a_key()), NOW, NOW + 30 * DAY))


def charlies() -> Certificate:
    key = a_key()
    return Certificate(key=key, statement=tls.issue(CHARLIE, key_info(key), NOW, NOW + 30 * DAY))


def prolonged() -> Certificate:
    """Made with a stolen TLS key, to be of use for longer."""
    key = a_key()
    statement = tls.issue(BOB, key_info(key), NOW, NOW + DAY)
    return Certificate(key=key, statement=statement, not_after=NOW + 30 * DAY)


HOSTILE = {
    "no statement": (lambda: Certificate(oid=x509.ObjectIdentifier("1.2.3.4")), "no statement of a hotkey"),
    "an older form of statement": (
        lambda: Certificate(oid=x509.ObjectIdentifier("1.3.6.1.3.1952543335.0")),
        "no statement of a hotkey",
    ),
    "an empty statement": (lambda: Certificate(statement=b""), "got 0 bytes"),
    "a garbage statement": (lambda: Certificate(statement=b"\x04\x60" + b"\xff" * 95), "got 97 bytes"),
    "a statement signed by nobody": (
        lambda: Certificate(statement=b"\x04\x60" + bytes(BOB.public_key) + bytes(64)),
        "signature",
    ),
    "Bob's statement about another key": (replayed, "signature"),
    "another hotkey's certificate": (charlies, "hotkey: got .*, expected"),
    "a prolonged certificate": (prolonged, "signature"),
    "an expired certificate": (
        lambda: Certificate(not_before=NOW - 30 * DAY, not_after=NOW - 301),
        "not_after",
    ),
    "a certificate to come": (lambda: Certificate(not_before=NOW + 301), "not_before"),
    "a certificate for ever": (lambda: Certificate(not_after=NOW + 91 * DAY), "lifetime"),
    "an RSA key": (lambda: Certificate(key=rsa.generate_private_key(65537, 2048)), "RSAPublicKey"),
    "another curve": (
        lambda: Certificate(key=ec.generate_private_key(ec.SECP384R1())),
        "expected P-256 or Ed25519",
    ),
    "another key's signature": (lambda: Certificate(signed_by=a_key()), "expected a self-signed one"),
    "a huge extension": (
        lambda: Certificate(extras=((x509.ObjectIdentifier("1.2.3.4"), bytes(20_000)),)),
        "expected at most 4096",
    ),
    "a garbage extension": (
        lambda: Certificate(extras=((ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"\xff" * 40),)),
        "no X.509 certificate that can be read",
    ),
}
"""What a client must refuse, and what it says of it."""


@dataclass
class Shown:
    """A server with a certificate of one's choice, and what it was told."""

    place: Place
    heard: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def a_server_that_shows(certificate: Certificate) -> AsyncIterator[Shown]:
    """It ends every handshake that its client ends, and keeps what it hears then."""
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    shown = Shown(Place(tcp.extra(SocketAttribute.local_port)))

    async def listen(stream: ByteStream) -> None:
        async with stream:
            shown.heard.append(b"")
            while True:
                try:
                    shown.heard[-1] += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return

    async with tcp, anyio.create_task_group() as tasks:
        tasks.start_soon(TLSListener(tcp, certificate.context()).serve, listen)
        yield shown
        tasks.cancel_scope.cancel()
