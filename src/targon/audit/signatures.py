"""Provers' signatures under the receipts of a log: a sample, drawn so that who wrote the log could not foresee it.

A signature takes longer to check than all else about a record. So about as many are checked as somebody wants, by rank
(SHA-256 of the log's last hash and the attempt's number): a verifier that makes receipts up is found out unless they
are few.
"""

from __future__ import annotations

import hashlib
from typing import Final

from targon.audit.faults import Faults
from targon.audit.lean import LeanReceipt
from targon.protocol import receipts
from targon.protocol.errors import InvalidSignature, MalformedMessage
from targon.protocol.messages import Receipt, ReceiptBody
from targon.protocol.primitives import Digest

SIGNATURES: Final = 2_000
"""How many are checked unless somebody says otherwise; about a tenth of a second."""


class Signatures:
    """Checks the receipts that its draw falls on.

    Args:
        head: hash of the log's last record.
        records: how many records there are.
        wanted: about how many signatures to check.
    """

    def __init__(self, head: Digest, records: int, wanted: int) -> None:
        self._head = bytes.fromhex(head)
        self._limit = (wanted << 64) // max(1, records)
        self.checked = 0

    def look(self, seq: int, attempt: int, receipt: Receipt | LeanReceipt, faults: Faults) -> None:
        """Check a receipt, if it is drawn."""
        rank = hashlib.sha256(self._head + attempt.to_bytes(8, "big")).digest()[:8]
        if int.from_bytes(rank, "big") >= self._limit:
            return
        self.checked += 1
        try:
            receipts.check_signature(_whole(receipt))
        except (InvalidSignature, MalformedMessage) as error:
            faults.add("receipt", seq, f"attempt {attempt}: {error}", "a receipt that its prover signed")


def _whole(receipt: Receipt | LeanReceipt) -> Receipt:
    """A receipt, from the parts that the fold reads."""
    if isinstance(receipt, Receipt):
        return receipt
    body = receipt.body._asdict()
    numbers = {name: int(body[name]) for name in ("block", "issued_at", "netuid")}
    return Receipt(body=ReceiptBody(**(body | numbers)), signature=receipt.signature)
