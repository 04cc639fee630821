"""Following a log from several processes that share the work.

A group reads every record of a log once, shared out among its consumers. A record is a consumer's own from
when it is handed out until it asks for the next; if it dies before that, another consumer of the group takes
the record over. So every record is seen at least once, by the group.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from targon.ledger.errors import CorruptLog, LogUnavailable
from targon.ledger.port import Head, Record
from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.schema import RECORDS, entry_id, rows
from targon.ledger.redis.server import check_server, holds_a_log
from targon.ledger.redis.session import Session
from targon.protocol.primitives import Digest

logger = structlog.get_logger(__name__)

CLAIM_AFTER_S: Final = 30.0
_BATCH: Final = 32
_WAIT_MS: Final = 1_000
"""A consumer looks for what dead ones left this often while nothing new comes."""

Entries = list[tuple[bytes, dict[bytes, bytes]]]


async def follow(
    address: RedisAddress, group: str, consumer: str, *, claim_after_s: float = CLAIM_AFTER_S
) -> AsyncGenerator[Record, None]:
    """The records of a log, from its first on, without end, shared with the group's other consumers.

    Asking for the next record says that the one before it was dealt with. A consumer that comes back under
    its name first gets what it had not dealt with. New records come in the log's order; those that a dead
    consumer left come when they are taken over, in the log's order among themselves. Close it (``aclosing``)
    when you stop.

    Args:
        claim_after_s: a record that a consumer held for so long without asking for the next is given to
            another one. Longer than dealing with a batch of 32 takes, or records are seen twice.

    Raises:
        LogUnavailable: if Redis cannot be reached, holds no log, or was away for too long.
        CorruptLog: naming the first record that is not what its hash says.
    """
    session = Session(address)
    source = _Source(address, group, consumer, int(claim_after_s * 1_000))
    try:
        await session.call(source.join, "follow the log")
        while True:
            for record in await session.call(source.next, "follow the log"):
                yield record
                seq = record.seq
                await session.call(lambda client: source.done(client, seq), "follow the log")  # noqa: B023
    finally:
        await session.aclose()


class _Source:
    """What a consumer is handed, in batches."""

    def __init__(self, address: RedisAddress, group: str, consumer: str, claim_after_ms: int) -> None:
        self._address = address
        self._group = group
        self._consumer = consumer
        self._claim_after_ms = claim_after_ms
        self._came_back = True

    async def join(self, client: Redis) -> None:
        """Make the group where there is none; it begins with record 0."""
        await check_server(client, self._address)
        if not await holds_a_log(client, self._address):
            raise LogUnavailable(f"there is no log at {self._address}: give the address of a verifier's log")
        await self._make_group(client)

    async def next(self, client: Redis) -> list[Record]:
        """What to deal with next; perhaps nothing yet.

        What is handed out stays this consumer's until it is done with, so that a batch whose answer got lost
        is handed out again.
        """
        try:
            entries = await self._next(client)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            logger.warning("group_made_anew", log=str(self._address), group=self._group)
            await self._make_group(client)
            return []
        except BaseException:
            self._came_back = True  # what the lost answer held is this consumer's now
            raise
        return [_record(entry) for entry in entries]

    async def done(self, client: Redis, seq: int) -> None:
        """A record was dealt with."""
        await client.execute_command("XACK", RECORDS, self._group, entry_id(seq))

    async def _make_group(self, client: Redis) -> None:
        try:
            await client.execute_command("XGROUP CREATE", RECORDS, self._group, "0", "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _next(self, client: Redis) -> Entries:
        if self._came_back:
            own = await self._read(client, "0")
            if own:
                return own
            self._came_back = False
        _, claimed, *_ = await client.execute_command(
            *("XAUTOCLAIM", RECORDS, self._group, self._consumer, self._claim_after_ms, "0-0"),
            *("COUNT", _BATCH),
        )
        return [entry for entry in claimed if entry[0] is not None] or await self._read(client, ">")

    async def _read(self, client: Redis, after: str) -> Entries:
        answer: Any = await client.execute_command(
            *("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", _BATCH),
            *("BLOCK", _WAIT_MS, "STREAMS", RECORDS, after),
        )
        return answer[0][1] if answer else []


def _record(entry: tuple[bytes, dict[bytes, bytes]]) -> Record:
    (row,) = rows([entry])
    if problem := row.problem(Head(row.seq - 1, Digest(row.prev.decode("utf-8", "replace")))):
        raise CorruptLog(row.seq, problem)
    return row.record()
