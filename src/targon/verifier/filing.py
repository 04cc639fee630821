"""What a verifier says of an answer afterwards: its receipt, countersigned, and what an audit found.

Which answers were audited is a secret until the log is published: a prover that learnt it earlier would know how
closely it is watched, and the next draws' rate. So a verdict is shown once its record is released, but for one: that an
answer was wrong is said at once, to whoever got it.
"""

from __future__ import annotations

from targon.ledger import Answered, Record, Verdict
from targon.protocol.countersignatures import countersign
from targon.protocol.keys import Signer
from targon.protocol.primitives import Digest
from targon.transport.errands import AuditVerdict, FiledReceipt
from targon.verifier.journal import Journal
from targon.verifier.receipt_index import ReceiptIndex


class Filing:
    """Finds receipts."""

    def __init__(self, journal: Journal, signer: Signer) -> None:
        self._journal = journal
        self._signer = signer
        self.index: ReceiptIndex | None = None
        """Set once it has caught up with the log."""

    async def find(self, receipt_id: Digest) -> FiledReceipt | None:
        """A receipt by its id, the digest of its request; None: there is none, or the log is being read still."""
        if self.index is None or not _is_digest(receipt_id):
            return None
        place = await self.index.find(receipt_id)
        if place is None:
            return None
        record = await self._record(place.record)
        assert isinstance(record.event, Answered)  # the index holds no others
        receipt = record.event.receipt
        verdict = None if place.verdict is None else await self._verdict(place.verdict)
        return FiledReceipt(
            receipt=receipt,
            countersignature=countersign(
                receipt, record=record.seq, record_hash=record.hash, signer=self._signer
            ),
            block=record.event.block,
            verdict=verdict,
        )

    async def _verdict(self, seq: int) -> AuditVerdict | None:
        event = (await self._record(seq)).event
        assert isinstance(event, Verdict)
        if event.outcome != "fail" and seq >= self._journal.standings.released:
            return None
        return AuditVerdict(event.outcome, event.method, event.score, event.reason, seq)

    async def _record(self, seq: int) -> Record:
        (record,) = [record async for record in self._journal.read(seq, seq + 1)]
        return record


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
