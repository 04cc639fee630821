"""A receipt as whoever asked for it is told: what ``GET /v1/receipts/{id}`` answers."""

from __future__ import annotations

from targon.protocol.filed import AuditStatement, ReceiptStatement
from targon.transport.errands import FiledReceipt

CONTENT_TYPE = "application/json"

_MAX_METHOD_CHARS = 64
_MAX_REASON_CHARS = 2000


def statement_of(filed: FiledReceipt) -> bytes:
    """The verifier's statement about a receipt that it has on file, in its canonical form (RFC 8785).

    That an answer is audited is told by nothing in it before there is a verdict: one that awaits it, and one that
    nobody will judge, read alike.
    """
    verdict = filed.verdict
    audit = None
    if verdict is not None:
        audit = AuditStatement(
            outcome=verdict.outcome,
            method=verdict.method[:_MAX_METHOD_CHARS],
            score=verdict.score,
            reason=verdict.reason[:_MAX_REASON_CHARS],
            record=verdict.record,
        )
    return ReceiptStatement(
        receipt=filed.receipt, countersignature=filed.countersignature, block=filed.block, audit=audit
    ).to_bytes()
