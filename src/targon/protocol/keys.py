"""Hotkeys, signatures and their bytes. sr25519, as on the chain.

``bittensor`` is imported where it is needed: who only samples, in an engine's own environment, has no keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

from targon.protocol.errors import InvalidSignature, MalformedMessage
from targon.protocol.primitives import Hotkey

SS58_FORMAT = 42
"""The address format of Bittensor (generic Substrate)."""


KEPT_KEYS: Final = 4096
"""Hotkeys whose other spelling is remembered: every message names the same few."""


class Signer(Protocol):
    """Anything that signs as a hotkey: a keypair of ``bittensor`` is one."""

    @property
    def ss58_address(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    @property
    def crypto_type(self) -> int: ...

    def sign(self, payload: bytes, /) -> bytes: ...


@lru_cache(maxsize=KEPT_KEYS)
def public_key(hotkey: Hotkey) -> bytes:
    """The 32 bytes of a hotkey's public key.

    Raises:
        MalformedMessage: if the hotkey is no ss58 address.
    """
    from bittensor.sp_core import ss58_decode

    try:
        return bytes(ss58_decode(hotkey))
    except ValueError as error:
        raise MalformedMessage(f"hotkey: got {hotkey[:80]!r}, expected an ss58 address ({error})") from error


@lru_cache(maxsize=KEPT_KEYS)
def hotkey_of(key: bytes) -> Hotkey:
    """The ss58 address of a 32-byte public key."""
    from bittensor.sp_core import ss58_encode

    return Hotkey(ss58_encode(key, SS58_FORMAT))


def verify_signature(hotkey: Hotkey, message: bytes, signature: bytes) -> None:
    """Check an sr25519 signature.

    Raises:
        InvalidSignature: if it isn't this hotkey's signature of this message.
    """
    from bittensor.sp_core import CRYPTO_SR25519, verify

    try:
        valid = verify(message, signature, hotkey, CRYPTO_SR25519)
    except ValueError as error:
        raise InvalidSignature(f"signature of {hotkey}: {error}") from error
    if not valid:
        raise InvalidSignature(f"the signature is not {hotkey}'s signature of this message")
