"""What whoever asks for a receipt is told."""

from __future__ import annotations

import pytest
from bittensor.keyfiles import Keypair

from targon.gateway.receipts import statement_of
from targon.protocol import Countersignature, ReceiptStatement, countersignatures, filed
from targon.protocol.primitives import Block, Digest
from targon.transport.errands import AuditVerdict, FiledReceipt
from tests.verification.answers import VERIFIER, whole_answer

pytestmark = pytest.mark.anyio

VERDICT = AuditVerdict(outcome="pass", method="divergence", score=0.75, reason="as drawn", record=90)


async def filed_receipt(verdict: AuditVerdict | None = None, signer: Keypair = VERIFIER) -> FiledReceipt:
    _, response = await whole_answer()
    countersignature = countersignatures.countersign(
        response.receipt, record=80, record_hash=Digest("07" * 32), signer=signer
    )
    assert isinstance(countersignature, Countersignature)
    return FiledReceipt(response.receipt, countersignature, Block(78), verdict)


async def test_a_statement_holds_what_is_on_file_and_verifies() -> None:
    on_file = await filed_receipt(VERDICT)
    told = ReceiptStatement.from_bytes(statement_of(on_file))
    filed.check(told, receipt_id=Digest(on_file.receipt.body.request_digest))
    assert (told.receipt, told.countersignature) == (on_file.receipt, on_file.countersignature)
    assert told.audit is not None
    assert (told.block, told.audit.outcome, told.audit.score, told.audit.record) == (78, "pass", 0.75, 90)


async def test_a_statement_is_in_its_canonical_form() -> None:
    told = statement_of(await filed_receipt(VERDICT))
    assert ReceiptStatement.from_bytes(told).to_bytes() == told


async def test_nothing_tells_an_answer_that_awaits_its_verdict_from_one_that_gets_none() -> None:
    told = ReceiptStatement.from_bytes(statement_of(await filed_receipt()))
    assert told.audit is None
    assert set(told.to_json()) == {"spec_version", "receipt", "countersignature", "block", "audit"}


async def test_a_reason_that_is_too_long_is_cut() -> None:
    long = AuditVerdict(outcome="fail", method="m" * 99, score=0.0, reason="r" * 3000, record=90)
    told = ReceiptStatement.from_bytes(statement_of(await filed_receipt(long)))
    assert told.audit is not None
    assert (len(told.audit.method), len(told.audit.reason)) == (64, 2000)
