"""The log port over Redis Streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar

import anyio
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from targon.ledger.errors import LedgerError, LogUnavailable
from targon.ledger.events import Event
from targon.ledger.port import Head, Pair, Record, Snapshot, chained, expected_by
from targon.ledger.redis import server, stored
from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.session import GOODBYE_S, Session
from targon.ledger.redis.writer import RENEW_S, Writer
from targon.ledger.row import Row
from targon.protocol.records import LogLine

logger = structlog.get_logger(__name__)

_BATCH: Final = 256
"""Records read, checked and parsed at a time."""

T = TypeVar("T")


class RedisLog:
    """A log in a Redis database of its own; open it with :meth:`open`."""

    def __init__(self, session: Session, writer: Writer | None) -> None:
        self._session = session
        self._writer = writer
        self._turn = anyio.Lock()
        self._renewing = anyio.CancelScope()

    @classmethod
    @asynccontextmanager
    async def open(cls, address: RedisAddress, *, read_only: bool = False) -> AsyncGenerator[RedisLog, None]:
        """Open a log for as long as the context lasts; for writing, create it where there is none.

        There is one writer at a time, and any number of readers beside it.

        Raises:
            LogUnavailable: if Redis cannot be reached or holds no log, or another process is writing to it.
            CorruptLog: naming the first wrong record since the newest snapshot.
        """
        session = Session(address)
        log = cls(session, None if read_only else Writer(address))
        try:
            await log._begin()
            if read_only:
                yield log
                return
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(log._renew)
                    try:
                        yield log
                    finally:
                        await log.aclose()
            except BaseExceptionGroup as group:
                # The task group is a detail: whoever uses the log gets the error that was raised there.
                if len(group.exceptions) > 1:
                    raise
                raise group.exceptions[0] from group.exceptions[0].__cause__
        finally:
            await log.aclose()

    async def head(self) -> Head:
        """Where the log ends.

        Raises:
            LogUnavailable: if Redis was away for too long.
        """
        return await self._session.call(self._head, "read the log")

    async def append(self, events: Sequence[Event], *, expected: Head) -> list[Record]:
        """Append events after ``expected``; all of them or none. Returns once Redis acknowledged them.

        While Redis is away it is tried again, for up to a minute; what became of the last try is found out
        before the next.

        Raises:
            HeadMoved: if the log does not end at ``expected``.
            LogUnavailable: if it cannot be written, or another writer took it.
            MalformedMessage: if an event has no canonical form.
        """
        if not events:
            return []
        pairs = chained(events, expected)
        await self.write(pairs)
        return [record for record, _ in pairs]

    async def write(self, pairs: Sequence[Pair]) -> None:
        """As :meth:`append`, for events that :func:`~targon.ledger.port.chained` has put in their places already."""
        if not pairs:
            return
        expected = expected_by(pairs)
        async with self._turn:
            writer = self._writing()
            await self._session.call(lambda client: writer.append(client, pairs, expected), "write the log")

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[Record, None]:
        """Records with ``start <= seq < stop``, in order, each checked against its hash and predecessor.

        Raises:
            CorruptLog: naming the first record that is not what its hash says, or is missing.
            LogUnavailable: if Redis was away for too long.
        """
        async with aclosing(self._batches(start, stop, Row.record)) as batches:
            async for records in batches:
                for record in records:
                    yield record

    async def read_lines(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[LogLine, None]:
        """As :meth:`read`, but each event as the bytes that are stored."""
        async with aclosing(self._batches(start, stop, Row.line)) as batches:
            async for lines in batches:
                for line in lines:
                    yield line

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; the newest few are kept.

        Raises:
            InvalidHistory: if its head is not in this log.
        """
        async with self._turn:
            writer = self._writing()
            await self._session.call(
                lambda client: writer.save_snapshot(client, snapshot), "save a snapshot in the log"
            )

    async def latest_snapshot(self) -> Snapshot | None:
        name = str(self._session.address)
        return await self._session.call(
            lambda client: stored.latest_snapshot(client, name), "read a snapshot in the log"
        )

    async def aclose(self) -> None:
        """Let the next writer begin, and disconnect; a Redis that is away is not waited for."""
        self._renewing.cancel()
        with anyio.move_on_after(GOODBYE_S, shield=True):
            writer, self._writer = self._writer, None
            if writer is not None:
                try:
                    await writer.release(self._session.client)
                except (RedisError, OSError, LogUnavailable):
                    logger.info("lease_left_to_expire", log=str(self._session.address))
            await self._session.aclose()

    # -- inside --------------------------------------------------------------------------------------

    async def _batches(
        self, start: int, stop: int | None, make: Callable[[Row], T]
    ) -> AsyncGenerator[list[T], None]:
        if self._writer is not None:
            await self.head()
        while True:
            at = start
            made = await self._session.call(
                lambda client: stored.read_records(client, at, stop, _BATCH, make),  # noqa: B023 - run at once
                "read the log",
            )
            yield made
            if len(made) < _BATCH:
                return
            start += _BATCH

    async def _begin(self) -> None:
        address, writer = self._session.address, self._writer

        async def begin(client: Redis) -> None:
            await server.check_server(client, address)
            if not await server.holds_a_log(client, address) and writer is None:
                raise LogUnavailable(f"there is no log at {address}: give the address of a verifier's log")
            if writer is not None:
                await writer.take(client)
                await server.say_what_could_be_lost(client, address)
            head = await stored.check_chain(client, str(address))
            if writer is not None:
                writer.begin(head)

        await self._session.call(begin, "open the log")

    def _writing(self) -> Writer:
        if self._writer is None:
            self._session.client  # noqa: B018 - raises if the log was closed
            raise LogUnavailable(
                f"cannot write the log {self._session.address}: it was opened for reading, expected for writing"
            )
        return self._writer

    async def _head(self, client: Redis) -> Head:
        head = await stored.read_head(client)
        writer = self._writer
        if writer is None or head == writer.last:
            return head
        async with self._turn:  # an append is under way, or Redis lost its newest records
            await writer.heal(client)
            return writer.last

    async def _renew(self) -> None:
        """Keep the lease, and what Redis lost from being missed for long."""
        with self._renewing:
            while True:
                await anyio.sleep(RENEW_S)
                try:
                    async with self._turn:
                        if self._writer is None:  # closed while this waited for its turn
                            return
                        await self._writer.heal(self._session.client)
                except (RedisError, OSError):
                    continue  # Redis is away; whoever appends next says so, and waits for it
                except LedgerError as error:
                    logger.error("log_lost", log=str(self._session.address), problem=str(error))
                    return
