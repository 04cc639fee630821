"""The log port: an append-only, hash-chained record of events. The only truth; all else is derived."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from targon.ledger.events import Event
from targon.protocol.primitives import Digest

GENESIS_HASH = Digest("0" * 64)
"""What the first record names as its predecessor."""


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
    """``seq`` of the last record; −1 if there is none."""
    hash: Digest


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

    def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[Record, None]:
        """Records with ``start ≤ seq < stop``, in order, each checked against its hash and predecessor.

        Raises:
            CorruptLog: naming the first record that is not what its hash says, or is missing.
        """
        ...

    async def save_snapshot(self, snapshot: Snapshot) -> None: ...

    async def latest_snapshot(self) -> Snapshot | None:
        """The newest snapshot whose head is in the log and whose content matches its digest; None if none."""
        ...

    async def aclose(self) -> None: ...
