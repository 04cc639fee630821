"""Receipts: a prover signs what it answered to which request, and anyone can check it.

``signed_bytes`` is ``"targon/receipt/1" ‖ 0x00 ‖ RFC 8785 form of the body``: the prefix keeps a receipt
from being mistaken for anything else that the same hotkey signs.
"""

from __future__ import annotations

from targon.protocol.errors import ReceiptMismatch
from targon.protocol.keys import Signer, verify_signature
from targon.protocol.messages import Completion, GenerateRequest, Receipt, ReceiptBody
from targon.protocol.primitives import Digest

_DOMAIN = b"targon/receipt/1\x00"


def signed_bytes(body: ReceiptBody) -> bytes:
    """The exact bytes that a prover signs."""
    return _DOMAIN + body.to_bytes()


def issue(
    request: GenerateRequest,
    completion: Completion,
    *,
    model_digest: Digest,
    issued_at: int,
    salt: bytes,
    signer: Signer,
) -> Receipt:
    """Sign a receipt for a completion.

    Args:
        issued_at: seconds since 1970-01-01 UTC.
        salt: 32 random bytes.
    """
    body = ReceiptBody(
        salt=salt.hex(),
        genesis=request.genesis,
        netuid=request.netuid,
        verifier=request.verifier,
        prover=request.prover,
        attempt=request.attempt,
        block=request.block,
        request_digest=request.digest(),
        completion_digest=completion.digest(),
        model=request.model,
        model_digest=model_digest,
        issued_at=issued_at,
    )
    return Receipt(body=body, signature=bytes(signer.sign(signed_bytes(body))).hex())


def check(receipt: Receipt, request: GenerateRequest, completion: Completion) -> None:
    """Check that a receipt is the prover's own, for exactly this request and this completion.

    Raises:
        ReceiptMismatch: if it speaks of another request, completion or party; the field is named.
        InvalidSignature: if the prover's hotkey did not sign it.
    """
    body = receipt.body
    expected: dict[str, object] = {
        "genesis": request.genesis,
        "netuid": request.netuid,
        "verifier": request.verifier,
        "prover": request.prover,
        "attempt": request.attempt,
        "block": request.block,
        "model": request.model,
        "request_digest": request.digest(),
        "completion_digest": completion.digest(),
    }
    for field, value in expected.items():
        got = getattr(body, field)
        if got != value:
            raise ReceiptMismatch(field, got, value)
    check_signature(receipt)


def check_signature(receipt: Receipt) -> None:
    """Check that a receipt is the prover's own, whatever it is for: request and completion are not at hand.

    Raises:
        InvalidSignature: if the prover's hotkey did not sign it.
    """
    verify_signature(receipt.body.prover, signed_bytes(receipt.body), bytes.fromhex(receipt.signature))
