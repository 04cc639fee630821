"""What a log in Redis holds, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog
from redis.asyncio import Redis

from targon.ledger.errors import CorruptLog
from targon.ledger.port import EMPTY, Head, Snapshot
from targon.ledger.redis.schema import HEAD, RECORDS, SNAPSHOTS, entry_id, noted_head, rows
from targon.ledger.row import Row, checked
from targon.protocol.primitives import Digest

logger = structlog.get_logger(__name__)

_BATCH: Final = 512
"""Records checked at a time when a log is opened."""

_LAST_PART: Final = 2**64 - 1

T = TypeVar("T")


async def read_head(client: Redis) -> Head:
    """Where the log ends."""
    return noted_head(await client.execute_command("HMGET", HEAD, "seq", "hash"))


async def read_records(
    client: Redis, start: int, stop: int | None, limit: int, make: Callable[[Row], T]
) -> list[T]:
    """What is made of at most ``limit`` records from ``start``, each checked; fewer where the log or ``stop`` ends.

    Raises:
        CorruptLog: naming the first that is not what its hash says, or is missing.
    """
    wanted = start + limit if stop is None else min(start + limit, stop)
    if start >= wanted:
        return []
    head, found = await _page(client, start - 1, wanted)
    end = min(wanted, head.seq + 1)
    if start >= end:
        return []
    before = EMPTY
    if start > 0:
        if not found or found[0].seq != start - 1:
            raise CorruptLog(start - 1, "it is missing")
        before = _head_of(found.pop(0))
    return checked([row for row in found if row.seq < end], before, end, head, make)


async def check_chain(client: Redis, log: str) -> Head:
    """Check the chain from the newest good snapshot to the end, which is returned.

    Raises:
        CorruptLog: naming the first wrong record.
    """
    head = await read_head(client)
    snapshot = await latest_snapshot(client, log)
    before = EMPTY
    if snapshot is not None and snapshot.head.seq > 0:
        before = await _stored_head(client, snapshot.head.seq - 1)
    while True:
        start = before.seq + 1
        head, found = await _page(client, start, start + _BATCH)
        for row in found:
            if row.seq > head.seq:
                raise CorruptLog(row.seq, f"it stands beyond the log's end, record {head.seq}")
            if problem := row.problem(before):
                raise CorruptLog(before.seq + 1, f"{problem}; the log goes on to record {head.seq}")
            before = _head_of(row)
        if len(found) < _BATCH:
            break
    if before.seq < head.seq:
        raise CorruptLog(before.seq + 1, f"it is missing; the log goes on to record {head.seq}")
    if before != head:
        raise CorruptLog(head.seq, f"the log's end is noted as {head.hash[:12]}…")
    return head


async def latest_snapshot(client: Redis, log: str) -> Snapshot | None:
    """The newest snapshot whose head is in the log and whose content matches its digest; None if none."""
    head = await read_head(client)
    kept = [int(seq) for seq in await client.execute_command("HKEYS", SNAPSHOTS) if seq.isdigit()]
    for seq in sorted(kept, reverse=True):
        if seq > head.seq:
            continue
        value: bytes | None = await client.execute_command("HGET", SNAPSHOTS, seq)
        if value is None:
            continue
        hash_, digest, state = value[:64], value[64:128], value[128:]
        in_log = await _row(client, seq)
        if in_log and in_log.hash == hash_ and hashlib.sha256(state).hexdigest().encode() == digest:
            return Snapshot(Head(seq, Digest(hash_.decode())), state)
        logger.warning("snapshot_damaged", log=log, seq=seq)
    return None


async def _page(client: Redis, start: int, end: int) -> tuple[Head, list[Row]]:
    """Where the log ends, and its stored records with ``start <= seq < end``, as of one moment."""
    async with client.pipeline(transaction=True) as moment:
        moment.execute_command("HMGET", HEAD, "seq", "hash")
        first = entry_id(start) if start > 0 else "-"
        moment.execute_command("XRANGE", RECORDS, first, f"{end}-{_LAST_PART}")
        answers: list[Any] = await moment.execute()
    return noted_head(answers[0]), rows(answers[1])


async def _row(client: Redis, seq: int) -> Row | None:
    found = rows(await client.execute_command("XRANGE", RECORDS, entry_id(seq), entry_id(seq)))
    return found[0] if found else None


async def _stored_head(client: Redis, seq: int) -> Head:
    row = await _row(client, seq)
    if row is None:
        raise CorruptLog(seq, "it is missing")
    return _head_of(row)


def _head_of(row: Row) -> Head:
    return Head(row.seq, Digest(row.hash.decode("utf-8", "replace")))
