"""A hotkey's statement that a TLS key is its own, for a while. It stands in the certificate that a neuron shows.

The statement is 98 bytes: ``0x04 0x60`` (DER: an octet string of 96 bytes) ‖ public key of the hotkey (32) ‖ its
signature (64). What is signed is ``"targon/tls/1" ‖ 0x00 ‖ SHA-256(SubjectPublicKeyInfo, DER) ‖ notBefore ‖ notAfter``,
the times as seconds since 1970-01-01 UTC in eight bytes, big-endian: a TLS key that was stolen is of use until then.
"""

from __future__ import annotations

import hashlib

from targon.protocol.errors import MalformedMessage, StatementMismatch
from targon.protocol.keys import Signer, hotkey_of, public_key, verify_signature
from targon.protocol.primitives import Hotkey

STATEMENT_OID = "1.3.6.1.3.1952543335.1"
"""The certificate's extension that holds the statement: in the experimental arc, under ASCII "targ" as a number."""
MAX_LIFETIME_S = 90 * 86_400
"""A statement for longer than this is refused."""
ALLOWED_SKEW_S = 300
"""The reader's clock may differ from the maker's by this much."""

_DOMAIN = b"targon/tls/1\x00"
_DER = b"\x04\x60"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
_LATEST = 253_402_300_799
"""The last second of the year 9999: no certificate can name a later one."""


def signed_bytes(key_info: bytes, not_before: int, not_after: int) -> bytes:
    """The exact bytes that a hotkey signs.

    Args:
        key_info: the TLS key's SubjectPublicKeyInfo, DER.
        not_before, not_after: the certificate's validity, seconds since 1970-01-01 UTC.

    Raises:
        MalformedMessage: if a time is none.
    """
    for name, value in (("notBefore", not_before), ("notAfter", not_after)):
        if not 0 <= value <= _LATEST:
            raise MalformedMessage(f"{name}: got {value}, expected seconds since 1970, up to the year 9999")
    times = not_before.to_bytes(8, "big") + not_after.to_bytes(8, "big")
    return _DOMAIN + hashlib.sha256(key_info).digest() + times


def issue(signer: Signer, key_info: bytes, not_before: int, not_after: int) -> bytes:
    """The statement, as it stands in the certificate."""
    signature = bytes(signer.sign(signed_bytes(key_info, not_before, not_after)))
    return _DER + bytes(signer.public_key) + signature


def check(
    statement: bytes, key_info: bytes, not_before: int, not_after: int, *, hotkey: Hotkey, now: int
) -> None:
    """Check that this hotkey says that the TLS key is its own now.

    Raises:
        MalformedMessage: if it is no statement.
        StatementMismatch: if it is another hotkey's, not valid now, or for too long; the field is named.
        InvalidSignature: if the hotkey did not sign it, for this key and these times.
    """
    if len(statement) != len(_DER) + _KEY_BYTES + _SIGNATURE_BYTES or not statement.startswith(_DER):
        raise MalformedMessage(
            f"statement: got {len(statement)} bytes ({statement[:2].hex()}…), expected an octet string of 96"
        )
    key, signature = statement[2 : 2 + _KEY_BYTES], statement[2 + _KEY_BYTES :]
    if key != public_key(hotkey):
        raise StatementMismatch("hotkey", hotkey_of(key), hotkey)
    message = signed_bytes(key_info, not_before, not_after)
    if now < not_before - ALLOWED_SKEW_S:
        raise StatementMismatch("not_before", not_before, f"at most {now + ALLOWED_SKEW_S}")
    if now > not_after + ALLOWED_SKEW_S:
        raise StatementMismatch("not_after", not_after, f"at least {now - ALLOWED_SKEW_S}")
    if not_after - not_before > MAX_LIFETIME_S:
        raise StatementMismatch("lifetime", not_after - not_before, f"at most {MAX_LIFETIME_S} s")
    verify_signature(hotkey, message, signature)


def peer_name(hotkey: Hotkey) -> str:
    """The name under which a hotkey is called in TLS: its public key as hex, in two labels, under ``.invalid``.

    Raises:
        MalformedMessage: if the hotkey is no ss58 address.
    """
    digits = public_key(hotkey).hex()
    return f"{digits[:32]}.{digits[32:]}.targon.invalid"


def named_peer(name: str) -> Hotkey:
    """The hotkey that such a name stands for.

    Raises:
        MalformedMessage: if it is no such name.
    """
    digits = name.removesuffix(".targon.invalid").replace(".", "")
    try:
        hotkey = hotkey_of(bytes.fromhex(digits))
        if peer_name(hotkey) == name:
            return hotkey
    except ValueError:
        pass
    raise MalformedMessage(f"name: got {name[:80]!r}, expected a hotkey's: <32 hex>.<32 hex>.targon.invalid")
