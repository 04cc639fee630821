"""The log and its fold, kept in step: what is appended is applied, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from targon.ledger import Event, Head, Log, Record, Snapshot, Standings, chain_records, replay

SNAPSHOT_EVERY = 2_000
"""Records between two snapshots: start-up folds at most this many."""


class Journal:
    """A verifier's memory. Open it with :meth:`open`."""

    def __init__(self, log: Log, standings: Standings, head: Head) -> None:
        self._log = log
        self.standings = standings
        self._head = head
        self._lock = anyio.Lock()
        self.parted = False
        """Whether the fold is ahead of what the log took: during an append, and for good after one that failed."""
        self._snapshot_at = head.seq

    @classmethod
    async def open(cls, log: Log) -> Journal:
        """Fold what the log holds; raises as the log's reading does."""
        standings = await replay(log)
        return cls(log, standings, await log.head())

    @property
    def head(self) -> Head:
        return self._head

    async def append(self, *events: Event) -> list[Record]:
        """Write events and apply them; returns once they are on disk."""
        async with self._lock:
            return await self._append(events)

    async def append_made(self, make: Callable[[int], Sequence[Event]]) -> list[Record]:
        """As :meth:`append`, for events that depend on their place or on the standings just before them.

        Args:
            make: given the place of the first event, the events. Nothing is appended between.
        """
        async with self._lock:
            return await self._append(tuple(make(self._head.seq + 1)))

    async def _append(self, events: tuple[Event, ...]) -> list[Record]:
        if not events:
            return []
        # Folded before it is written: an event that cannot follow must never stand in the log. If either
        # fails the two have parted, and the verifier ends; it goes on from the log when it is started again.
        self.parted = True
        for record in chain_records(events, self._head):
            self.standings.apply(record)
        # Once begun, an append is seen through: were it cancelled half-way, nobody would know where it ends.
        with anyio.CancelScope(shield=True):
            records = await self._log.append(events, expected=self._head)
        self._head = Head(records[-1].seq, records[-1].hash)
        self.parted = False
        return records

    async def snapshot_if_due(self) -> None:
        """Save a snapshot when enough has happened since the last."""
        if self._head.seq - self._snapshot_at >= SNAPSHOT_EVERY:
            await self.snapshot()

    async def snapshot(self) -> None:
        async with self._lock:
            await self._log.save_snapshot(Snapshot(self._head, self.standings.to_snapshot()))
            self._snapshot_at = self._head.seq
