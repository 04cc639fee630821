"""A log copied from one place to another, record by record, with the same hashes: to move it, or to keep a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from targon.ledger.errors import CorruptLog, MigrationRefused
from targon.ledger.fold import Standings
from targon.ledger.port import EMPTY, Head, Log, Record, chain_records

BATCH: Final = 256
"""Records that are appended at once; what an interruption leaves is a multiple of it."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration did, all of it checked."""

    head: Head
    """Where the target ends, and where the source ended when it began."""
    copied: int
    """Records that this run copied; fewer than the log has where it went on from an earlier run."""
    snapshot: Head | None
    """As of which record the newest snapshot, which was copied too, is; None if there was none."""
    source: Head
    """Where the source ended at last: beyond ``head`` if its verifier wrote to it meanwhile."""


async def migrate(source: Log, target: Log, progress: Callable[[int, int], None]) -> Migrated:
    """Copy a log's records and its newest snapshot into an empty log, or go on where an earlier run stopped.

    What the source held at the beginning is copied. At the end that is read whole in both, record 0 to the last: the
    last must have the same hash, and the standings folded from each must be equal, byte for byte. The source is not
    changed. Its verifier may go on writing to it; what comes meanwhile is left to the next run.

    Args:
        progress: told how many records the target has, and how many it will have.

    Raises:
        MigrationRefused: if the target holds another log, or goes on beyond the source.
        CorruptLog: if a record of either is not what its hash says.
        LogUnavailable: if one of them cannot be read or written.
    """
    # The snapshot first: it is never of a record beyond the end that is looked up after it.
    snapshot = await source.latest_snapshot()
    end, begun = await source.head(), await target.head()
    await _check_beginning(source, end, begun)
    progress(begun.seq + 1, end.seq + 1)
    head, batch = begun, list[Record]()
    async with aclosing(source.read(begun.seq + 1, end.seq + 1)) as records:
        async for record in records:
            batch.append(record)
            if len(batch) == BATCH or record.seq == end.seq:
                head = await _copy(batch, target, head)
                progress(head.seq + 1, end.seq + 1)
                batch = []
    await _check_equal(source, target, end)
    if snapshot is not None:
        await target.save_snapshot(snapshot)
    return Migrated(
        head, head.seq - begun.seq, None if snapshot is None else snapshot.head, await source.head()
    )


async def _check_beginning(source: Log, end: Head, begun: Head) -> None:
    """What the target holds must be how the source begins. Its last hash says so for all before it."""
    if begun == EMPTY:
        return
    if begun.seq > end.seq:
        raise MigrationRefused(
            f"the target goes on to record {begun.seq}, expected none after the source's last, {end.seq}: "
            "are source and target the wrong way round?"
        )
    async with aclosing(source.read(begun.seq, begun.seq + 1)) as records:
        async for record in records:
            if record.hash != begun.hash:
                raise MigrationRefused(
                    f"the target holds another log: got record {begun.seq} ({begun.hash[:12]}…), expected "
                    f"{record.hash[:12]}… or an empty log: give a new file or database"
                )


async def _copy(records: Sequence[Record], target: Log, head: Head) -> Head:
    events = [record.event for record in records]
    for record, again in zip(records, chain_records(events, head), strict=True):
        if record.hash != again.hash:
            raise CorruptLog(
                record.seq,
                f"it cannot be written as it was: its event, parsed and written again, has the hash "
                f"{again.hash[:12]}…, expected {record.hash[:12]}…",
            )
    last = (await target.append(events, expected=head))[-1]
    return Head(last.seq, last.hash)


async def _check_equal(source: Log, target: Log, end: Head) -> None:
    states = []
    for name, log in (("source", source), ("target", target)):
        standings = Standings()
        async with aclosing(log.read(0, end.seq + 1)) as records:
            async for record in records:
                standings.apply(record)
        if standings.head != end:
            raise CorruptLog(
                end.seq,
                f"the {name} has {standings.head.hash[:12]}… there now, expected {end.hash[:12]}…, as it had before",
            )
        states.append(standings.to_snapshot())
    if states[0] != states[1]:
        raise CorruptLog(end.seq, "the standings folded from source and target differ, expected equal bytes")
