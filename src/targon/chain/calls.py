"""Signed calls: what a neuron's hotkey asks of the embedded chain.

``signed_bytes`` is ``"targon/chain/1" ‖ 0x00 ‖ RFC 8785 form of the call``. The genesis hash ties a call to
one chain and the nonce to one place among its hotkey's calls, so that it can be neither carried over nor
repeated.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from targon.chain.errors import CallRefused
from targon.protocol.errors import InvalidSignature
from targon.protocol.keys import Signer, public_key, verify_signature
from targon.protocol.messages import Message
from targon.protocol.primitives import Digest, Hex8, Hex32, Hex64, Hotkey, HotkeyField, u64_hex

_DOMAIN = b"targon/chain/1\x00"
_COMMIT_DOMAIN = b"targon/chain/weights-commit/1\x00"

_U16 = Annotated[int, Field(ge=0, le=65_535)]


class SetWeights(Message):
    """Replace the caller's weights."""

    kind: Literal["set_weights"] = "set_weights"
    weights: tuple[tuple[_U16, _U16], ...]
    """(UID, weight) in UID order."""
    version_key: Hex8


class CommitWeights(Message):
    """Commit to weights that the caller will reveal."""

    kind: Literal["commit_weights"] = "commit_weights"
    committed: Hex32
    """Hash of :func:`reveal_content`."""


class RevealWeights(Message):
    """Reveal weights that the caller committed to; they replace its weights."""

    kind: Literal["reveal_weights"] = "reveal_weights"
    weights: tuple[tuple[_U16, _U16], ...]
    """(UID, weight) in UID order."""
    version_key: Hex8
    salt: Hex32


class PutAnchor(Message):
    """Put a digest on chain in the caller's name."""

    kind: Literal["put_anchor"] = "put_anchor"
    anchored: Hex32


class ServeAxon(Message):
    """Announce where the caller serves."""

    kind: Literal["serve_axon"] = "serve_axon"
    host: str
    """An IP address."""
    port: Annotated[int, Field(ge=1, le=65_535)]


Action = SetWeights | CommitWeights | RevealWeights | PutAnchor | ServeAxon


class Call(Message):
    """What is signed."""

    genesis: Hex32
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    hotkey: HotkeyField
    nonce: Hex8
    """How many calls of this hotkey the chain has taken before."""
    action: Annotated[Action, Field(discriminator="kind")]

    def signed_bytes(self) -> bytes:
        """The exact bytes that the hotkey signs."""
        return _DOMAIN + self.to_bytes()


def reveal_content(hotkey: Hotkey, reveal: RevealWeights) -> bytes:
    """The bytes whose hash a commit carries: ``"targon/chain/weights-commit/1" ‖ 0x00 ‖ public key (32) ‖ RFC 8785
    form of the reveal``."""
    return _COMMIT_DOMAIN + public_key(hotkey) + reveal.to_bytes()


class SignedCall(Message):
    """A call and its hotkey's sr25519 signature."""

    call: Call
    signature: Hex64


def sign_call(signer: Signer, action: Action, *, genesis: Digest, netuid: int, nonce: int) -> SignedCall:
    """Sign a call as the signer's hotkey."""
    call = Call(
        genesis=genesis,
        netuid=netuid,
        hotkey=Hotkey(signer.ss58_address),
        nonce=u64_hex(nonce),
        action=action,
    )
    return SignedCall(call=call, signature=bytes(signer.sign(call.signed_bytes())).hex())


def check_call(signed: SignedCall, *, genesis: Digest, netuid: int) -> None:
    """Check that a call is its hotkey's own and meant for this chain.

    Raises:
        CallRefused: if it isn't.
    """
    call = signed.call
    if call.genesis != genesis or call.netuid != netuid:
        raise CallRefused(
            f"call: got one for chain {call.genesis[:12]}… netuid {call.netuid}, expected {genesis[:12]}… "
            f"netuid {netuid}; sign it for this chain"
        )
    try:
        verify_signature(call.hotkey, call.signed_bytes(), bytes.fromhex(signed.signature))
    except InvalidSignature as error:
        raise CallRefused(
            f"call: {error}; expected the sr25519 signature of the hotkey that it names"
        ) from error
