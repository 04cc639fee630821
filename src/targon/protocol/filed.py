"""What a verifier says of one answer to whoever asks by its receipt's id: ``GET /v1/receipts/{id}``.

The id of a receipt is the digest of the request that it is for: whoever asked knows it before there is an answer. Two
parts of a statement are signed, the prover's receipt and the verifier's countersignature. The others, the block and
what an audit found, are the verifier's word for now: its published log must say the same, at the places named.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from targon.protocol import countersignatures, receipts
from targon.protocol.countersignatures import Countersignature
from targon.protocol.errors import InvalidSignature, ReceiptMismatch
from targon.protocol.messages import MAX_SAFE_INTEGER, Message, Receipt
from targon.protocol.primitives import SPEC_VERSION, Block, Digest
from targon.protocol.verdicts import Outcome

_Place = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


class AuditStatement(Message):
    """What a verifier found when it audited an answer."""

    outcome: Outcome
    method: Annotated[str, Field(max_length=64)]
    score: Annotated[float, Field(ge=0.0, le=1.0)]
    reason: Annotated[str, Field(max_length=2000)]
    record: _Place
    """Place of the verdict's record in the verifier's log."""


class ReceiptStatement(Message):
    """A receipt as a verifier has it on file."""

    spec_version: Literal[1] = SPEC_VERSION
    receipt: Receipt
    countersignature: Countersignature
    block: Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """In which the answer was logged."""
    audit: AuditStatement | None
    """None: not audited, not judged yet, or the verdict is not published yet. Which of them nobody is told."""

    @property
    def receipt_id(self) -> Digest:
        """The id of the receipt: the digest of the request."""
        return Digest(self.receipt.body.request_digest)


def check(statement: ReceiptStatement, *, receipt_id: Digest | None = None) -> None:
    """Check that both parties signed what a statement says that they signed, and that it doesn't contradict itself.

    Args:
        receipt_id: of the receipt that was asked for; None: any.

    Raises:
        ReceiptMismatch: if it is another receipt's, or two parts of it can't both be true; the field is named.
        InvalidSignature: if the prover or the verifier did not sign its part; the message says which.
    """
    body, signed = statement.receipt.body, statement.countersignature.body
    if receipt_id is not None and statement.receipt_id != receipt_id:
        raise ReceiptMismatch("request_digest", statement.receipt_id, receipt_id)
    try:
        receipts.check_signature(statement.receipt)
    except InvalidSignature as error:
        raise InvalidSignature(f"receipt: {error}") from error
    try:
        countersignatures.check(statement.countersignature, statement.receipt)
    except InvalidSignature as error:
        raise InvalidSignature(f"countersignature: {error}") from error
    attempt = int(body.attempt, 16)
    if signed.record <= attempt:
        raise ReceiptMismatch(
            "record", signed.record, f"a place after the attempt's, {attempt}", of="countersignature"
        )
    if statement.block < body.block:
        raise ReceiptMismatch(
            "block", statement.block, f"{body.block}, the request's, or later", of="statement"
        )
    if statement.audit is not None and statement.audit.record <= signed.record:
        expected = f"a place after the receipt's, {signed.record}"
        raise ReceiptMismatch("audit.record", statement.audit.record, expected, of="statement")
