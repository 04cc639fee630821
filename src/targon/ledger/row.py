"""A record as an adapter stores it, before anything is believed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from targon.ledger.errors import CorruptLog
from targon.ledger.events import UnknownEvent, parse_event
from targon.ledger.port import Head, Record, record_hash
from targon.protocol.primitives import Digest
from targon.protocol.records import LogLine

T = TypeVar("T")


class Row(NamedTuple):
    """A record as it is stored. Bytes: what is stored need not be UTF-8 any more when something damaged it."""

    seq: int
    prev: bytes
    hash: bytes
    event: bytes

    def problem(self, before: Head) -> str | None:
        """What is wrong with it as the record after a head; None if nothing is."""
        if self.seq != before.seq + 1:
            return f"it is missing: the next one is record {self.seq}"
        if self.prev != before.hash.encode():
            return f"it follows {self.prev[:12]!r}…, expected {before.hash[:12]}…"
        if record_hash(self.seq, before.hash, self.event).encode() != self.hash:
            return f"its content is not what its hash {self.hash[:12]!r}… says"
        return None

    def record(self) -> Record:
        try:
            event = parse_event(self.event)
        except UnknownEvent as error:
            raise CorruptLog(
                self.seq, f"it is whole, but no event that this software knows: {error}"
            ) from error
        return Record(self.seq, Digest(self.prev.decode()), Digest(self.hash.decode()), event)

    def line(self) -> LogLine:
        return LogLine(self.seq, Digest(self.prev.decode()), Digest(self.hash.decode()), self.event)


def checked(rows: Iterable[Row], before: Head, end: int, head: Head, make: Callable[[Row], T]) -> list[T]:
    """The records of a log that ends at ``head``, from the one after ``before`` up to, not including, ``end``.

    Args:
        make: what is made of each row once it is known to be what its hash says.

    Raises:
        CorruptLog: naming the first that is not what its hash says, or is missing.
    """
    records = []
    for row in rows:
        if problem := row.problem(before):
            raise CorruptLog(before.seq + 1, problem)
        records.append(make(row))
        before = Head(row.seq, Digest(row.hash.decode()))
    if before.seq + 1 != end:
        raise CorruptLog(before.seq + 1, f"it is missing: the log goes on to record {head.seq}")
    return records
