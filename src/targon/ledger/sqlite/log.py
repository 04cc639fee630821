"""The log port over an SQLite file. The file's blocking calls run in a thread of its own, one at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio

from targon.ledger.errors import LogUnavailable
from targon.ledger.events import Event
from targon.ledger.port import Head, Pair, Record, Snapshot, chained
from targon.ledger.row import Row
from targon.ledger.sqlite.file import LogFile
from targon.ledger.sqlite.thread import CallThread
from targon.protocol.records import LogLine

_BATCH: Final = 256
"""Records read, checked and parsed in one visit to the worker thread."""

T = TypeVar("T")


class SqliteLog:
    """A log in one SQLite file; open it with :meth:`open`, and close it with :meth:`aclose`."""

    def __init__(self, file: LogFile, thread: CallThread) -> None:
        self._file: LogFile | None = file
        self._thread = thread

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> SqliteLog:
        """Open a log; for writing, create it where there is none and repair a torn last record.

        There is one writer at a time, and any number of readers beside it.

        Raises:
            LogUnavailable: if the file is no log, another process is writing to it, or there is none to read.
            CorruptLog: naming the first wrong record since the newest snapshot.
        """
        opener = LogFile.open_read_only if read_only else LogFile.create_or_open
        thread = CallThread(f"log {path.name}")
        try:
            return cls(await thread.call(partial(opener, path)), thread)
        except BaseException:
            thread.stop()
            raise

    async def head(self) -> Head:
        return await self._visit(LogFile.head)

    async def append(self, events: Sequence[Event], *, expected: Head) -> list[Record]:
        """Append events after ``expected``; all of them or none. Returns once they are on disk.

        Raises:
            HeadMoved: if the log does not end at ``expected``.
            LogUnavailable: if it cannot be written.
            MalformedMessage: if an event has no canonical form.
        """
        if not events:
            return []
        pairs = chained(events, expected)
        await self.write(pairs)
        return [record for record, _ in pairs]

    async def write(self, pairs: Sequence[Pair]) -> None:
        """As :meth:`append`, for events that :func:`~targon.ledger.port.chained` has put in their places already."""
        if pairs:
            await self._visit(lambda file: file.write(pairs))

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[Record, None]:
        """Records with ``start <= seq < stop``, in order, each checked against its hash and predecessor.

        Raises:
            CorruptLog: naming the first record that is not what its hash says, or is missing.
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

    async def _batches(
        self, start: int, stop: int | None, make: Callable[[Row], T]
    ) -> AsyncGenerator[list[T], None]:
        while True:
            at = start
            made = await self._visit(lambda file: file.read(at, stop, _BATCH, make))  # noqa: B023 - run at once
            yield made
            if len(made) < _BATCH:
                return
            start += _BATCH

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; the newest few are kept.

        Raises:
            InvalidHistory: if its head is not in this log.
        """
        await self._visit(lambda file: file.save_snapshot(snapshot))

    async def latest_snapshot(self) -> Snapshot | None:
        return await self._visit(LogFile.latest_snapshot)

    async def aclose(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with anyio.CancelScope(shield=True):
                await self._thread.call(file.close)
            self._thread.stop()

    async def _visit(self, visit: Callable[[LogFile], T]) -> T:
        if self._file is None:
            raise LogUnavailable("the log was closed, expected it to be open")
        return await self._thread.call(partial(visit, self._file))
