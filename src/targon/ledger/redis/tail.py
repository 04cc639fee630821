"""The newest records that a writer appended, kept in memory for as long as Redis may lose them.

With ``appendfsync everysec`` a Redis that is killed comes back without what it acknowledged in its last
second or so. While the writer lives, nothing is lost: it holds these records, sees that the log's end went
back, and appends them again, which gives the same records with the same hashes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from targon.ledger.port import Head, Pair, Record

KEPT_S: Final = 30.0
"""Everysec loses a second or two; a disk that stalls its flushes, some more."""
KEPT_BYTES: Final = 64 << 20


class _Kept(NamedTuple):
    record: Record
    event: bytes
    at: float


class Tail:
    """What a writer knows of its log's end."""

    def __init__(self, head: Head) -> None:
        self._before = head
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self._unsure: Sequence[Pair] = ()

    @property
    def before(self) -> Head:
        """The record before the oldest that is kept."""
        return self._before

    @property
    def last(self) -> Head:
        """Where the log ends, by what was acknowledged."""
        return _head(self._kept[-1].record) if self._kept else self._before

    @property
    def unsure(self) -> Head | None:
        """Where the log ends if what was sent last came to be written; None if its fate is known."""
        return _head(self._unsure[-1][0]) if self._unsure else None

    def sending(self, pairs: Sequence[Pair]) -> None:
        """Records are on their way; nobody knows whether they arrive."""
        self._unsure = pairs

    def refused(self) -> None:
        """What was sent last was not written."""
        self._unsure = ()

    def acknowledged(self, now: float) -> None:
        """What was sent last was written.

        Args:
            now: seconds on a clock that never goes back.
        """
        for record, event in self._unsure:
            self._kept.append(_Kept(record, event, now))
            self._bytes += len(event)
        self._unsure = ()
        while self._kept and (self._kept[0].at < now - KEPT_S or self._bytes > KEPT_BYTES):
            oldest = self._kept.popleft()
            self._before = _head(oldest.record)
            self._bytes -= len(oldest.event)

    def after(self, head: Head) -> list[Pair] | None:
        """The kept records after a head; None if they don't begin there."""
        if head == self._before:
            return [(kept.record, kept.event) for kept in self._kept]
        place = head.seq - self._before.seq
        if not 0 < place <= len(self._kept) or _head(self._kept[place - 1].record) != head:
            return None
        return [(kept.record, kept.event) for kept in list(self._kept)[place:]]


def _head(record: Record) -> Head:
    return Head(record.seq, record.hash)
