"""Receipts: genuine ones verify, and nothing in them or around them can be changed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from bittensor.keyfiles import Keypair

from targon.protocol import (
    Completion,
    GenerateRequest,
    Hotkey,
    InvalidSignature,
    MalformedMessage,
    Receipt,
    ReceiptBody,
    ReceiptMismatch,
    receipts,
)

OTHER_BODY: dict[str, Any] = {
    "salt": "99" * 32,
    "genesis": "99" * 32,
    "netuid": 5,
    "attempt": "99" * 8,
    "block": 99,
    "request_digest": "99" * 32,
    "completion_digest": "99" * 32,
    "model": "other",
    "model_digest": "99" * 32,
    "issued_at": 99,
}
UNCHECKED = {"salt", "model_digest", "issued_at"}
"""Fields of the body that the request doesn't say."""
OTHER_REQUEST: dict[str, Any] = {
    "salt": "99" * 32,
    "genesis": "99" * 32,
    "netuid": 5,
    "attempt": "99" * 8,
    "block": 99,
    "block_hash": "99" * 32,
    "log_head": "99" * 32,
    "model": "other",
    "stream": True,
}
OTHER_COMPLETION: dict[str, Any] = {
    "salt": "99" * 32,
    "request_digest": "99" * 32,
    "token_ids": (5, 6),
    "finish_reason": "length",
    "logprobs": None,
}


def test_a_genuine_receipt_is_accepted(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion
) -> None:
    receipts.check(receipt, request_message, completion)
    receipts.check(Receipt.from_bytes(receipt.to_bytes()), request_message, completion)


def test_the_text_of_a_completion_is_a_courtesy_that_no_receipt_covers(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion
) -> None:
    receipts.check(receipt, request_message, completion.model_copy(update={"text": "Something else."}))


def test_what_is_signed_starts_with_its_purpose(receipt: Receipt) -> None:
    assert receipts.signed_bytes(receipt.body) == b"targon/receipt/1\x00" + receipt.body.to_bytes()


def test_a_receipt_repeats_its_request(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion
) -> None:
    body = receipt.body
    for field in ("genesis", "netuid", "verifier", "prover", "attempt", "block", "model"):
        assert getattr(body, field) == getattr(request_message, field)
    assert body.request_digest == hashlib.sha256(request_message.to_bytes()).hexdigest()
    assert body.completion_digest == completion.digest()
    assert (body.model_digest, body.issued_at, body.salt) == ("06" * 32, 1_800_000_000, "00" * 32)


def test_every_field_of_the_body_is_tried() -> None:
    assert set(OTHER_BODY) | {"spec_version", "verifier", "prover"} == set(ReceiptBody.model_fields)


@pytest.mark.parametrize("field", [*OTHER_BODY, "verifier", "prover"])
def test_a_receipt_with_any_field_changed_is_refused(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, field: str
) -> None:
    swapped = {"verifier": receipt.body.prover, "prover": receipt.body.verifier}
    body = receipt.body.model_copy(update={field: (OTHER_BODY | swapped)[field]})
    with pytest.raises((ReceiptMismatch, InvalidSignature)):
        receipts.check(receipt.model_copy(update={"body": body}), request_message, completion)


@pytest.mark.parametrize("field", [*sorted(OTHER_BODY.keys() - UNCHECKED), "verifier"])
def test_a_receipt_that_the_prover_signed_for_something_else_is_refused_by_name(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, prover: Keypair, field: str
) -> None:
    other = (OTHER_BODY | {"verifier": receipt.body.prover})[field]
    body = receipt.body.model_copy(update={field: other})
    signed = Receipt(body=body, signature=bytes(prover.sign(receipts.signed_bytes(body))).hex())
    with pytest.raises(ReceiptMismatch) as caught:
        receipts.check(signed, request_message, completion)
    assert caught.value.field == field


def test_a_receipt_of_another_prover_is_refused_by_name(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, verifier: Keypair
) -> None:
    """Whoever signs it in a name of its own: the request was for somebody else."""
    body = receipt.body.model_copy(update={"prover": Hotkey(verifier.ss58_address)})
    signed = Receipt(body=body, signature=bytes(verifier.sign(receipts.signed_bytes(body))).hex())
    with pytest.raises(ReceiptMismatch) as caught:
        receipts.check(signed, request_message, completion)
    assert caught.value.field == "prover"


@pytest.mark.parametrize("field", sorted(UNCHECKED))
def test_a_field_that_only_the_signature_covers_breaks_the_signature(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, field: str
) -> None:
    body = receipt.body.model_copy(update={field: OTHER_BODY[field]})
    with pytest.raises(InvalidSignature, match=request_message.prover):
        receipts.check(receipt.model_copy(update={"body": body}), request_message, completion)


@pytest.mark.parametrize("field", OTHER_REQUEST)
def test_a_receipt_for_another_request_is_refused(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, field: str
) -> None:
    other = request_message.model_copy(update={field: OTHER_REQUEST[field]})
    named = field if field in ReceiptBody.model_fields and field != "salt" else "request_digest"
    with pytest.raises(ReceiptMismatch, match=f"receipt {named}: got .*, expected ") as caught:
        receipts.check(receipt, other, completion)
    assert caught.value.field == named
    assert caught.value.got == getattr(receipt.body, named)


@pytest.mark.parametrize("field", OTHER_COMPLETION)
def test_a_receipt_for_another_completion_is_refused(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, field: str
) -> None:
    other = completion.model_copy(update={field: OTHER_COMPLETION[field]})
    with pytest.raises(ReceiptMismatch, match="completion_digest"):
        receipts.check(receipt, request_message, other)


def test_a_receipt_signed_by_anyone_else_is_refused(
    request_message: GenerateRequest, completion: Completion, verifier: Keypair
) -> None:
    forged = receipts.issue(
        request_message, completion, model_digest="06" * 32, issued_at=0, salt=bytes(32), signer=verifier
    )
    with pytest.raises(InvalidSignature):
        receipts.check(forged, request_message, completion)


def test_a_signature_of_the_body_without_its_purpose_is_refused(
    receipt: Receipt, request_message: GenerateRequest, completion: Completion, prover: Keypair
) -> None:
    bare = receipt.model_copy(update={"signature": bytes(prover.sign(receipt.body.to_bytes())).hex()})
    with pytest.raises(InvalidSignature):
        receipts.check(bare, request_message, completion)


@pytest.mark.parametrize("signature", ["", "00" * 63, "ZZ" * 64])
def test_what_is_no_signature_is_no_receipt(receipt: Receipt, signature: str) -> None:
    with pytest.raises(MalformedMessage, match=r"signature: .*expected 128 lower-case hex digits"):
        Receipt.from_json(receipt.to_json() | {"signature": signature})
