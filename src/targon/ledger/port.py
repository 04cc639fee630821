"""The log port: an append-only, hash-chained record of events. The only truth; all else is derived."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from targon.ledger.events import Event
from targon.protocol.primitives import Digest
from targon.protocol.records import GENESIS_HASH as GENESIS_HASH
from targon.protocol.records import LogLine
from targon.protocol.records import record_hash as record_hash


@dataclass(frozen=True, slots=True)
class Record:
    """One event in its place."""

    seq: int
    """Its place, from 0 without gaps; an attempt's number is the ``seq`` of its ``attempt`` event."""
    prev: Digest
    """Hash of the record before it."""
    hash: Digest
    """SHA-256 over the RFC 8785 form of ``{"event": …, "prev": …, "seq": …}``."""
    event: Event


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends."""

    seq: int
    """``seq`` of the last record; -1 if there is none."""
    hash: Digest


EMPTY = Head(-1, GENESIS_HASH)
"""Where a log without records ends."""


Pair = tuple[Record, bytes]
"""A record, and its event's canonical bytes."""


def chained(events: Sequence[Event], head: Head) -> list[Pair]:
    """The records that events become when they are appended after a head, with each event's canonical bytes.

    Raises:
        MalformedMessage: if an event has no canonical form (its evidence holds NaN, say).
    """
    pairs = []
    for seq, event in enumerate(events, head.seq + 1):
        data = event.to_bytes()
        record = Record(seq, head.hash, record_hash(seq, head.hash, data), event)
        pairs.append((record, data))
        head = Head(seq, record.hash)
    return pairs


def expected_by(pairs: Sequence[Pair]) -> Head:
    """Where a log must end for these records to be appended."""
    first = pairs[0][0]
    return Head(first.seq - 1, first.prev)


def chain_records(events: Sequence[Event], head: Head) -> list[Record]:
    """The records that events become when they are appended after a head. Nothing is written.

    They let a writer fold events before it appends them, so that history that cannot be is never written.
    """
    return [record for record, _ in chained(events, head)]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The standings as of one record, so that start-up need not read history."""

    head: Head
    state: bytes
    """Canonical JSON of the folded state."""


class Log(Protocol):
    """An append-only log. One conformance suite runs against every adapter.

    There is one writer at a time; it says where it believes the log to end, so that a second writer is
    refused instead of forking it. Errors are those of :mod:`targon.ledger.errors`.
    """

    async def head(self) -> Head: ...

    async def append(self, events: Sequence[Event], *, expected: Head) -> list[Record]:
        """Append events after ``expected``; all of them or none. Returns once they are on disk.

        Raises:
            HeadMoved: if the log does not end at ``expected``.
            LogUnavailable: if it cannot be written.
        """
        ...

    async def write(self, pairs: Sequence[Pair]) -> None:
        """As :meth:`append`, for events that :func:`chained` has put in their places already: for a writer that folds
        records before it writes them, so that they are made once.

        Raises:
            HeadMoved: if the log does not end where the first of them says.
            LogUnavailable: if it cannot be written.
        """
        ...

    def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[Record, None]:
        """Records with ``start ≤ seq < stop``, in order, each checked against its hash and predecessor.

        Raises:
            CorruptLog: naming the first record that is not what its hash says, or is missing.
        """
        ...

    def read_lines(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[LogLine, None]:
        """As :meth:`read`, but each event as the bytes that are stored: what was hashed, neither parsed nor
        written anew. So records can be handed on that are of kinds that came after this software."""
        ...

    async def save_snapshot(self, snapshot: Snapshot) -> None: ...

    async def latest_snapshot(self) -> Snapshot | None:
        """The newest snapshot whose head is in the log and whose content matches its digest; None if none."""
        ...

    async def aclose(self) -> None: ...
