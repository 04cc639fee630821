"""Countersignatures and statements: genuine ones verify, and nothing that was signed can be changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import (
    AuditStatement,
    Completion,
    Countersignature,
    CountersignatureBody,
    Digest,
    GenerateRequest,
    InvalidSignature,
    ProtocolError,
    Receipt,
    ReceiptMismatch,
    ReceiptStatement,
    countersignatures,
    filed,
    receipts,
)
from targon.protocol.vectors.filing import statement_json

STATEMENT = ReceiptStatement.from_json(statement_json())
OTHER: dict[str, Any] = {
    "genesis": "99" * 32,
    "netuid": 5,
    "attempt": "99" * 8,
    "record": 99,
    "record_hash": "99" * 32,
    "receipt_digest": "99" * 32,
}
TOLD_BY_THE_RECEIPT = {"genesis", "netuid", "attempt", "receipt_digest"}


@pytest.fixture
def countersignature(receipt: Receipt, verifier: Keypair) -> Countersignature:
    return countersignatures.countersign(receipt, record=80, record_hash=Digest("07" * 32), signer=verifier)


@pytest.fixture
def statement(receipt: Receipt, countersignature: Countersignature) -> ReceiptStatement:
    audit = AuditStatement(outcome="pass", method="divergence", score=1.0, reason="as drawn", record=90)
    return ReceiptStatement(
        receipt=receipt, countersignature=countersignature, block=receipt.body.block, audit=audit
    )


# -- the signature over a receipt alone ----------------------------------------------------------------------


def test_a_receipt_s_signature_is_checked_without_request_and_completion(receipt: Receipt) -> None:
    receipts.check_signature(receipt)


def test_a_receipt_that_another_signed_is_refused_without_request_and_completion(
    receipt: Receipt, verifier: Keypair
) -> None:
    forged = bytes(verifier.sign(receipts.signed_bytes(receipt.body))).hex()
    with pytest.raises(InvalidSignature, match=receipt.body.prover):
        receipts.check_signature(receipt.model_copy(update={"signature": forged}))


# -- countersignatures ---------------------------------------------------------------------------------------


def test_a_genuine_countersignature_is_accepted(receipt: Receipt, countersignature: Countersignature) -> None:
    countersignatures.check(countersignature, receipt)
    countersignatures.check(Countersignature.from_bytes(countersignature.to_bytes()), receipt)


def test_what_a_verifier_signs_starts_with_its_purpose(countersignature: Countersignature) -> None:
    body = countersignature.body
    assert countersignatures.signed_bytes(body) == b"targon/countersignature/1\x00" + body.to_bytes()


def test_a_countersignature_says_whose_receipt_it_is_and_where_it_stands(
    receipt: Receipt, countersignature: Countersignature
) -> None:
    body = countersignature.body
    for field in ("genesis", "netuid", "verifier", "attempt"):
        assert getattr(body, field) == getattr(receipt.body, field)
    assert (body.record, body.record_hash, body.receipt_digest) == (80, "07" * 32, receipt.digest())


def test_every_field_of_a_countersignature_is_tried() -> None:
    assert set(OTHER) | {"spec_version", "verifier"} == set(CountersignatureBody.model_fields)


@pytest.mark.parametrize("field", OTHER)
def test_a_countersignature_with_any_field_changed_is_refused(
    receipt: Receipt, countersignature: Countersignature, field: str
) -> None:
    body = countersignature.body.model_copy(update={field: OTHER[field]})
    with pytest.raises((ReceiptMismatch, InvalidSignature)):
        countersignatures.check(countersignature.model_copy(update={"body": body}), receipt)


@pytest.mark.parametrize("field", sorted(TOLD_BY_THE_RECEIPT))
def test_a_countersignature_of_something_else_is_refused_by_name_though_it_is_genuine(
    receipt: Receipt, countersignature: Countersignature, verifier: Keypair, field: str
) -> None:
    body = countersignature.body.model_copy(update={field: OTHER[field]})
    signed = Countersignature(
        body=body, signature=bytes(verifier.sign(countersignatures.signed_bytes(body))).hex()
    )
    with pytest.raises(ReceiptMismatch, match=f"^countersignature {field}: got .*, expected ") as caught:
        countersignatures.check(signed, receipt)
    assert (caught.value.field, caught.value.of) == (field, "countersignature")


def test_a_countersignature_of_another_verifier_is_refused_by_name(
    receipt: Receipt, countersignature: Countersignature, prover: Keypair
) -> None:
    body = countersignature.body.model_copy(update={"verifier": prover.ss58_address})
    signed = Countersignature(
        body=body, signature=bytes(prover.sign(countersignatures.signed_bytes(body))).hex()
    )
    with pytest.raises(ReceiptMismatch, match="countersignature verifier"):
        countersignatures.check(signed, receipt)


def test_the_same_receipt_with_another_signature_is_another_receipt(
    receipt: Receipt, countersignature: Countersignature, prover: Keypair
) -> None:
    """sr25519 signatures are randomised: the countersignature is for the one that stands in the log."""
    again = receipt.model_copy(
        update={"signature": bytes(prover.sign(receipts.signed_bytes(receipt.body))).hex()}
    )
    receipts.check_signature(again)
    with pytest.raises(ReceiptMismatch, match="receipt_digest"):
        countersignatures.check(countersignature, again)


# -- statements ----------------------------------------------------------------------------------------------


def test_a_genuine_statement_is_accepted(
    statement: ReceiptStatement, request_message: GenerateRequest
) -> None:
    filed.check(statement)
    filed.check(statement, receipt_id=request_message.digest())
    filed.check(statement.model_copy(update={"audit": None}))
    assert statement.receipt_id == request_message.digest()


def test_a_statement_about_another_receipt_than_was_asked_for_is_refused(statement: ReceiptStatement) -> None:
    with pytest.raises(ReceiptMismatch, match="request_digest"):
        filed.check(statement, receipt_id=Digest("99" * 32))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"block": 123_455}, r"^statement block: got 123455, expected \"123456, the request's, or later\""),
        (
            {"audit": AuditStatement(outcome="pass", method="x", score=1.0, reason="", record=80)},
            r"^statement audit.record: got 80, expected \"a place after the receipt's, 80\"",
        ),
    ],
)
def test_a_statement_that_contradicts_itself_is_refused(
    statement: ReceiptStatement, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ReceiptMismatch, match=said):
        filed.check(statement.model_copy(update=changes))


def test_a_receipt_can_t_stand_before_its_attempt(receipt: Receipt, verifier: Keypair) -> None:
    early = countersignatures.countersign(receipt, record=77, record_hash=Digest("07" * 32), signer=verifier)
    statement = ReceiptStatement(
        receipt=receipt, countersignature=early, block=receipt.body.block, audit=None
    )
    with pytest.raises(ReceiptMismatch, match="countersignature record: got 77, expected"):
        filed.check(statement)


def test_a_refusal_says_whose_signature_it_was(
    statement: ReceiptStatement, request_message: GenerateRequest, completion: Completion, verifier: Keypair
) -> None:
    none = "00" * 64
    with pytest.raises(InvalidSignature, match=r"^receipt: "):
        filed.check(
            statement.model_copy(update={"receipt": statement.receipt.model_copy(update={"signature": none})})
        )
    unsigned = statement.countersignature.model_copy(update={"signature": none})
    with pytest.raises(InvalidSignature, match=r"^countersignature: "):
        filed.check(statement.model_copy(update={"countersignature": unsigned}))


@given(st.data())
def test_a_statement_with_any_signed_byte_altered_is_refused(data) -> None:
    """Whatever stands in the receipt or in the countersignature; the rest is the verifier's word."""
    whole = STATEMENT.to_bytes()
    part = data.draw(st.sampled_from(["receipt", "countersignature"]))
    text = json.dumps(STATEMENT.to_json()[part], sort_keys=True, separators=(",", ":")).encode()
    begin = whole.index(b'"%b":%b' % (part.encode(), text)) + len(part) + 3
    place = data.draw(st.integers(begin, begin + len(text) - 1))
    altered = bytearray(whole)
    altered[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        filed.check(ReceiptStatement.from_bytes(bytes(altered)))
