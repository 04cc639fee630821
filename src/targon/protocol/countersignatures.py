"""What a verifier says of a receipt: that it stands in its log, and where.

Whoever holds a countersigned receipt can show that a log was cut or forked: the attempt must stand in what the verifier
publishes, at the place that it signed, with this very receipt. ``signed_bytes`` is
``"targon/countersignature/1" ‖ 0x00 ‖ RFC 8785 form of the body``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from targon.protocol.errors import ReceiptMismatch
from targon.protocol.keys import Signer, verify_signature
from targon.protocol.messages import MAX_SAFE_INTEGER, Message, Receipt
from targon.protocol.primitives import SPEC_VERSION, Digest, Hex8, Hex32, Hex64, HotkeyField

_DOMAIN = b"targon/countersignature/1\x00"


class CountersignatureBody(Message):
    """What a verifier signs."""

    spec_version: Literal[1] = SPEC_VERSION
    genesis: Hex32
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    verifier: HotkeyField
    attempt: Hex8
    """The attempt's number: the place of its record in the verifier's log."""
    record: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """Place of the record that holds the receipt."""
    record_hash: Hex32
    """Hash of that record: with it, all of the log up to there."""
    receipt_digest: Hex32
    """SHA-256 over the canonical form of the receipt, signature included."""


class Countersignature(Message):
    """A verifier's signed statement that a receipt stands in its log."""

    body: CountersignatureBody
    signature: Hex64
    """sr25519 by the verifier's hotkey over :func:`signed_bytes`."""


def signed_bytes(body: CountersignatureBody) -> bytes:
    """The exact bytes that a verifier signs."""
    return _DOMAIN + body.to_bytes()


def countersign(receipt: Receipt, *, record: int, record_hash: Digest, signer: Signer) -> Countersignature:
    """Sign that a receipt stands in our log.

    Args:
        record: place of the record that holds it.
        record_hash: that record's hash.
    """
    body = CountersignatureBody(
        genesis=receipt.body.genesis,
        netuid=receipt.body.netuid,
        verifier=receipt.body.verifier,
        attempt=receipt.body.attempt,
        record=record,
        record_hash=record_hash,
        receipt_digest=receipt.digest(),
    )
    return Countersignature(body=body, signature=bytes(signer.sign(signed_bytes(body))).hex())


def check(countersignature: Countersignature, receipt: Receipt) -> None:
    """Check that a countersignature is the verifier's own, for exactly this receipt.

    Raises:
        ReceiptMismatch: if it speaks of another receipt, attempt, network or verifier; the field is named.
        InvalidSignature: if the verifier's hotkey did not sign it.
    """
    body = countersignature.body
    expected: dict[str, object] = {
        "genesis": receipt.body.genesis,
        "netuid": receipt.body.netuid,
        "verifier": receipt.body.verifier,
        "attempt": receipt.body.attempt,
        "receipt_digest": receipt.digest(),
    }
    for field, value in expected.items():
        got = getattr(body, field)
        if got != value:
            raise ReceiptMismatch(field, got, value, of="countersignature")
    verify_signature(body.verifier, signed_bytes(body), bytes.fromhex(countersignature.signature))
