"""Which record holds which receipt: an index beside the log, derived from it and from nothing else.

It is written behind: what was appended since is held in memory until then, and after a crash read from the log again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import anyio
import structlog

from targon.ledger import Answered, Record, Verdict
from targon.ledger.port import EMPTY
from targon.protocol.primitives import Digest
from targon.verifier.journal import Journal

FILE: Final = "receipts.sqlite"
WRITE_EVERY_S: Final = 1.0
CATCH_UP: Final = 10_000
"""Records after which what was read of the log is written down."""

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER, hash TEXT) STRICT",
    "CREATE TABLE IF NOT EXISTS receipts (attempt INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, "
    "record INTEGER NOT NULL, verdict INTEGER) STRICT",
)


logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the log speaks of an answer."""

    attempt: int
    record: int
    """Place of the record that holds the receipt."""
    verdict: int | None
    """Place of its audit's verdict; None: there is none."""


@dataclass(slots=True)
class _News:
    """What was appended since the file was written."""

    places: dict[Digest, tuple[int, int]] = field(default_factory=dict)
    """By receipt: attempt and record."""
    verdicts: dict[int, int] = field(default_factory=dict)
    """By attempt: the verdict's record."""
    seq: int = EMPTY.seq
    hash: str = EMPTY.hash

    def followed_by(self, later: _News) -> _News:
        """All of both."""
        end = self if later.seq == EMPTY.seq else later
        return _News(self.places | later.places, self.verdicts | later.verdicts, end.seq, end.hash)


class ReceiptIndex:
    """Open it with :meth:`open`, :meth:`catch_up` with a journal, then :meth:`run` it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._news = _News()
        self._lock = anyio.Lock()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder's index; one that can't be read is made anew. Blocks."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        try:
            return cls(_connect(path))
        except sqlite3.DatabaseError:
            for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
                (folder / name).unlink(missing_ok=True)
            return cls(_connect(path))

    def close(self) -> None:
        self._db.close()

    async def catch_up(self, journal: Journal) -> None:
        """Read what the log holds beyond the index, and follow what is appended from here on."""
        seq, hash_ = await anyio.to_thread.run_sync(self._place)
        known = seq <= journal.head.seq and seq >= 0
        if known:
            known = [record.hash async for record in journal.read(seq, seq + 1)] == [hash_]
        if not known:  # begun, or the log is another one: restored from a copy, say
            await anyio.to_thread.run_sync(self._clear)
            seq = EMPTY.seq
        async for record in journal.read(seq + 1, journal.head.seq + 1):
            self._note([record])
            if record.seq % CATCH_UP == 0:
                await self.write()
        journal.follow(self._note)

    async def run(self) -> None:
        """Write down what comes, for ever."""
        while True:
            await anyio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write down what came."""
        async with self._lock:
            if self._news.seq == EMPTY.seq:
                return
            # A stop between the two would lose the news, and the next write would say that the log was read beyond it.
            with anyio.CancelScope(shield=True):
                news, self._news = self._news, _News()
                try:
                    await anyio.to_thread.run_sync(self._store, news)
                except sqlite3.Error as error:
                    logger.warning("receipts_not_indexed", error=str(error))
                    self._news = news.followed_by(self._news)

    async def find(self, receipt_id: Digest) -> Place | None:
        """Where the log speaks of an answer; None: nowhere."""
        async with self._lock:
            recent = self._news.places.get(receipt_id)
            if recent is not None:
                attempt, record = recent
                return Place(attempt, record, self._news.verdicts.get(attempt))
            row = await anyio.to_thread.run_sync(self._row, receipt_id)
        if row is None:
            return None
        attempt, record, verdict = row
        return Place(attempt, record, self._news.verdicts.get(attempt, verdict))

    def _note(self, records: Sequence[Record]) -> None:
        news = self._news
        for record in records:
            event = record.event
            if type(event) is Answered:
                news.places[Digest(event.receipt.body.request_digest)] = event.attempt, record.seq
            elif type(event) is Verdict:
                news.verdicts[event.attempt] = record.seq
        news.seq, news.hash = records[-1].seq, records[-1].hash

    def _place(self) -> tuple[int, str]:
        row: tuple[int, str] | None = self._db.execute("SELECT seq, hash FROM place").fetchone()
        return row or (EMPTY.seq, EMPTY.hash)

    def _clear(self) -> None:
        self._db.execute("DELETE FROM receipts")
        self._db.execute("DELETE FROM place")

    def _store(self, news: _News) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._store_all(news)
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _store_all(self, news: _News) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, NULL)",
            [(attempt, bytes.fromhex(id_), record) for id_, (attempt, record) in news.places.items()],
        )
        self._db.executemany(
            "UPDATE receipts SET verdict = ? WHERE attempt = ?",
            [(record, attempt) for attempt, record in news.verdicts.items()],
        )
        self._db.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?)", (news.seq, news.hash))

    def _row(self, receipt_id: Digest) -> tuple[int, int, int | None] | None:
        row: tuple[int, int, int | None] | None = self._db.execute(
            "SELECT attempt, record, verdict FROM receipts WHERE id = ?", (bytes.fromhex(receipt_id),)
        ).fetchone()
        return row


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    for table in _TABLES:
        connection.execute(table)
    return connection
