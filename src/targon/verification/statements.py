"""A verifier's statement about a receipt, checked without a network: alone, or beside the answer that it is for."""

from __future__ import annotations

from targon.protocol import filed
from targon.protocol.errors import ProtocolError
from targon.protocol.filed import ReceiptStatement
from targon.protocol.messages import GenerateRequest, GenerateResponse


def statement_fault(
    statement: ReceiptStatement,
    request: GenerateRequest | None = None,
    response: GenerateResponse | None = None,
) -> str | None:
    """What is wrong with a statement, in a sentence; None: both parties signed it, for this answer.

    Args:
        request, response: the answer that it should be for; None: any.
    """
    try:
        filed.check(statement, receipt_id=None if request is None else request.digest())
    except ProtocolError as error:
        return f"statement refused: {error}"
    if response is not None and statement.receipt != response.receipt:
        return "statement refused: it is about another receipt for this request than the answer came with"
    return None
