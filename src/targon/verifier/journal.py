"""The log and its fold, kept in step: what is appended is applied, and nothing else is.

Many ask for an append at once, and a disk takes its time for each. So whoever comes while one is under way waits, and
the next append takes all that wait together. Each entry stays whole: nothing of another's comes between its events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from time import monotonic
from typing import Final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from targon.ledger import Event, Head, Log, Record, Snapshot, Standings, chained, replay
from targon.ledger.port import Pair

SNAPSHOT_EVERY = 2_000
"""Records between two snapshots: start-up folds at most this many."""

SNAPSHOT_SHARE: Final = 0.02
"""At most this part of the time goes into snapshots: they grow with what an interval holds, and all else waits."""

MAX_TOGETHER: Final = 256
"""Entries in one append: so many are written in a few milliseconds, and nobody waits for more than two appends."""

Make = Callable[[int], Sequence[Event]]
"""Given the place of the first event, the events. The standings are then those just before it."""


class Journal:
    """A verifier's memory. Open it with :meth:`open`."""

    def __init__(self, log: Log, standings: Standings, head: Head) -> None:
        self._log = log
        self.standings = standings
        self._head = head
        self._lock = anyio.Lock(fast_acquire=True)
        self._waiting: list[_Entry] = []
        self._writing = False
        self._followers: list[Callable[[Sequence[Record]], None]] = []
        self.parted = False
        """Whether the fold is ahead of what the log took: during an append, and for good after one that failed."""
        self._snapshot_at = head.seq
        self._next_snapshot_s = float("-inf")

    @classmethod
    async def open(cls, log: Log) -> Journal:
        """Fold what the log holds; raises as the log's reading does."""
        standings = await replay(log)
        return cls(log, standings, await log.head())

    @property
    def head(self) -> Head:
        return self._head

    def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[Record, None]:
        """Records that are written, as the log reads them."""
        return self._log.read(start, stop)

    def follow(self, tell: Callable[[Sequence[Record]], None]) -> None:
        """Have each append's records told, in order, once they are on disk and before those that wait for them go on.

        Args:
            tell: must neither block nor raise.
        """
        self._followers.append(tell)

    async def append(self, *events: Event) -> list[Record]:
        """Write events and apply them; returns once they are on disk."""
        return await self.append_made(lambda _: events)

    async def append_made(self, make: Make) -> list[Record]:
        """As :meth:`append`, for events that depend on their place or on the standings just before them.

        Once begun it is seen through, also where the caller is cancelled: were it not, nobody would know what of it
        is written.

        Args:
            make: given the place of the first event, the events. What it raises, the caller gets, and nobody else.

        Raises:
            InvalidHistory: if the first event cannot follow; then nothing of the entry is written.
        """
        await checkpoint_if_cancelled()
        entry = _Entry(make)
        self._waiting.append(entry)
        with anyio.CancelScope(shield=True):
            if self._writing:
                await entry.turn.wait()
            if not entry.ended:
                await self._write_what_waits()
        if entry.error is not None:
            raise entry.error
        return entry.records

    async def _write_what_waits(self) -> None:
        """Write everybody's, and let the first who came meanwhile do the same for the next append."""
        self._writing = True
        await cancel_shielded_checkpoint()  # who is ready now as well need not wait for the next one
        batch, self._waiting = self._waiting[:MAX_TOGETHER], self._waiting[MAX_TOGETHER:]
        try:
            async with self._lock:
                await self._write(batch)
        except Exception as error:  # noqa: BLE001 - everybody whose events were to be written must hear of it
            for entry in batch:
                entry.error = entry.error or error
        finally:
            for entry in batch:
                entry.end()
            self._writing = bool(self._waiting)
            if self._waiting:
                self._waiting[0].turn.set()

    async def _write(self, batch: Iterable[_Entry]) -> None:
        # Folded before it is written: an event that cannot follow must never stand in the log. If the two part,
        # the verifier ends; it goes on from the log when it is started again.
        folded: list[Pair] = []
        for entry in batch:
            ahead = Head(folded[-1][0].seq, folded[-1][0].hash) if folded else self._head
            try:
                pairs = self._fold(entry.make, ahead)
            except Exception as error:
                if self.standings.head != ahead:
                    self.parted = True
                    raise
                entry.error = error
            else:
                entry.records = [record for record, _ in pairs]
                folded += pairs
        if not folded:
            return
        self.parted = True
        await self._log.write(folded)
        records = [record for record, _ in folded]
        self._head = Head(records[-1].seq, records[-1].hash)
        self.parted = False
        for tell in self._followers:
            tell(records)

    def _fold(self, make: Make, ahead: Head) -> list[Pair]:
        pairs = chained(tuple(make(ahead.seq + 1)), ahead)
        for record, _ in pairs:
            self.standings.apply(record)
        return pairs

    async def snapshot_if_due(self) -> None:
        """Save a snapshot when enough has happened since the last, and the last is long enough ago."""
        began_s = monotonic()
        if self._head.seq - self._snapshot_at >= SNAPSHOT_EVERY and began_s >= self._next_snapshot_s:
            await self.snapshot()
            ended_s = monotonic()
            self._next_snapshot_s = ended_s + (ended_s - began_s) / SNAPSHOT_SHARE

    async def snapshot(self) -> None:
        async with self._lock:
            await self._log.save_snapshot(Snapshot(self._head, self.standings.to_snapshot()))
            self._snapshot_at = self._head.seq


class _Entry:
    """What one caller wants appended, and what became of it."""

    __slots__ = ("ended", "error", "make", "records", "turn")

    def __init__(self, make: Make) -> None:
        self.make = make
        self.records: list[Record] = []
        self.error: Exception | None = None
        self.ended = False
        self.turn = asyncio.Event()
        """Set when the entry has ended, or when it is its caller's turn to write."""

    def end(self) -> None:
        self.ended = True
        self.turn.set()
