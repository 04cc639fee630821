"""Certificates that a hotkey vouches for: how one is made, and what one must be. No I/O and no clock.

A certificate is signed by its own key and says nothing by itself. What counts is the statement in it, that the
key is a hotkey's own for as long as the certificate is valid (:mod:`targon.protocol.tls`).
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from targon.protocol import tls
from targon.protocol.errors import ProtocolError
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey

MAX_CERTIFICATE_BYTES = 4096
"""Ours have about 550."""

_STATEMENT = x509.ObjectIdentifier(tls.STATEMENT_OID)
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the parser raises for bytes that are no certificate."""


class UntrustedCertificate(Exception):
    """A certificate that doesn't show what it should; the message says what was got and what was expected."""


def make_certificate(signer: Signer, *, not_before: int, not_after: int) -> bytes:
    """A new TLS key (P-256) and its certificate, vouched for by the signer's hotkey, as PEM.

    Args:
        not_before, not_after: its validity, seconds since 1970-01-01 UTC.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer.ss58_address)])
    statement = tls.issue(signer, _key_info(key.public_key()), not_before, not_after)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
        .add_extension(x509.UnrecognizedExtension(_STATEMENT, statement), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private


def check_certificate(der: bytes, hotkey: Hotkey, *, now: int) -> None:
    """Check that a hotkey vouches for a certificate now. That the peer has its key is TLS's own to check.

    Raises:
        UntrustedCertificate: saying what was got and what was expected.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise UntrustedCertificate(f"got {len(der)} bytes, expected at most {MAX_CERTIFICATE_BYTES}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        statements = [each.value for each in certificate.extensions if each.oid == _STATEMENT]
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
    except _UNREADABLE as error:
        raise UntrustedCertificate(f"got no X.509 certificate that can be read ({error})") from error
    if not _is_accepted(key):
        raise UntrustedCertificate(f"got a key of kind {type(key).__name__}, expected P-256 or Ed25519")
    if not statements or not isinstance(statements[0], x509.UnrecognizedExtension):
        raise UntrustedCertificate(
            f"got no statement of a hotkey, expected one in the extension {tls.STATEMENT_OID}"
        )
    try:
        tls.check(statements[0].value, _key_info(key), not_before, not_after, hotkey=hotkey, now=now)
        certificate.verify_directly_issued_by(certificate)
    except ProtocolError as error:
        raise UntrustedCertificate(str(error)) from error
    except (InvalidSignature, *_UNREADABLE) as error:
        raise UntrustedCertificate(
            "got a certificate that its own key did not sign, expected a self-signed one"
        ) from error


def _is_accepted(key: object) -> bool:
    """Keys of other kinds, or of any size, would let a stranger choose what a check costs us."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _key_info(key: object) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    if not isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)):
        raise TypeError(f"got a key of kind {type(key).__name__}, expected P-256 or Ed25519")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
