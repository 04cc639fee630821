"""A log in an SQLite file: opened, checked, repaired, read and written. Every call here blocks.

WAL with ``synchronous=FULL``: a transaction that returned survives a crash and a power loss.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from targon.ledger.errors import CorruptLog, HeadMoved, InvalidHistory, LogUnavailable
from targon.ledger.port import EMPTY, Head, Pair, Snapshot, expected_by
from targon.ledger.row import Row, checked
from targon.ledger.sqlite.database import (
    Unreadable,
    WriterLock,
    check_header,
    check_schema,
    connect,
    create_file,
    create_tables,
    is_blank,
    is_malformed,
    rows,
)
from targon.ledger.sqlite.salvage import salvage
from targon.protocol.primitives import Digest

logger = structlog.get_logger(__name__)

SNAPSHOTS_KEPT: Final = 3

T = TypeVar("T")


class LogFile:
    """An open log. Not safe for use from two threads at once."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None) -> None:
        self._path = path
        self._db = connection
        self._lock = lock

    @classmethod
    def create_or_open(cls, path: Path) -> LogFile:
        """Open a log for writing; create it where there is none, repair a torn last record.

        Raises:
            LogUnavailable: if the file is no log, or another process is writing to it.
            CorruptLog: naming the first wrong record, if more than the last one is wrong.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path)
        except OSError as error:
            raise LogUnavailable(f"cannot write a log at {path}: {error}") from error
        try:
            if not path.exists():
                create_file(path)
            check_header(path)
            try:
                return cls._open(path, lock)
            except Unreadable as error:
                salvage(path, error.problem)
            except sqlite3.DatabaseError as error:
                if not is_malformed(error):
                    raise
                salvage(path, str(error))
            return cls._open(path, lock)
        except sqlite3.Error as error:
            lock.release()
            raise LogUnavailable(f"cannot open the log {path}: {error}") from error
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open(cls, path: Path, lock: WriterLock) -> LogFile:
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if is_blank(connection):
                create_tables(connection)
            check_schema(connection, path)
            log = cls(path, connection, lock)
            log._check_chain(repair=True)
        except BaseException:
            connection.close()
            raise
        return log

    @classmethod
    def open_read_only(cls, path: Path) -> LogFile:
        """Open a log for reading, also while another process writes to it.

        Raises:
            LogUnavailable: if there is none, or the file is none.
            CorruptLog: naming the first wrong record; a torn last one, too, is for the writer to repair.
        """
        if not path.exists():
            raise LogUnavailable(f"there is no log at {path}: give the path of a verifier's log")
        check_header(path)
        try:
            connection = connect(path, read_only=True)
            try:
                check_schema(connection, path)
                log = cls(path, connection, None)
                log._check_chain(repair=False)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise LogUnavailable(f"cannot read the log {path}: {error}") from error
        return log

    # -- reading -------------------------------------------------------------------------------------

    def head(self) -> Head:
        with self._reading():
            return self._head()

    def read(self, start: int, stop: int | None, limit: int, make: Callable[[Row], T]) -> list[T]:
        """What is made of at most ``limit`` records from ``start``, each checked; fewer where the log or ``stop``
        ends."""
        with self._reading():
            head = self._head()
            end = min(start + limit, head.seq + 1, head.seq + 1 if stop is None else stop)
            if start >= end:
                return []
            return checked(rows(self._db, start, end), self._head_at(start - 1), end, head, make)

    def _head(self) -> Head:
        rows = self._db.execute("SELECT seq, hash FROM log").fetchall()
        if len(rows) != 1:
            raise CorruptLog(0, f"the log's end is noted {len(rows)} times, expected once")
        return Head(rows[0][0], Digest(rows[0][1]))

    def _head_at(self, seq: int) -> Head:
        """The head that a log ending with a record has."""
        if seq == EMPTY.seq:
            return EMPTY
        row = self._db.execute("SELECT hash FROM records WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            raise CorruptLog(seq, "it is missing")
        return Head(seq, Digest(row[0]))

    # -- checking ------------------------------------------------------------------------------------

    def _check_chain(self, *, repair: bool) -> None:
        """Check the chain from the newest good snapshot to the end; a torn last record is taken off."""
        with self._reading():
            head = self._head()
            snapshot = self._latest_snapshot(head)
            start = EMPTY if snapshot is None else self._head_at(snapshot.head.seq - 1)
            problem = None
            for row in rows(self._db, start.seq + 1, head.seq + 2):
                if row.seq > head.seq:
                    raise CorruptLog(row.seq, f"it stands beyond the log's end, record {head.seq}")
                if problem := row.problem(start):
                    break
                start = Head(row.seq, Digest(row.hash.decode()))
        if start == head:
            return
        wrong = start.seq + 1
        problem = problem or (
            "it is missing" if start.seq < head.seq else f"the log's end is noted as {head.hash[:12]}…"
        )
        if wrong != head.seq:
            raise CorruptLog(min(wrong, head.seq), f"{problem}; the log goes on to record {head.seq}")
        if not repair:
            raise CorruptLog(
                wrong, f"{problem}; a verifier that opens the log takes this torn last record off", torn=True
            )
        self._take_off(head.seq, start)
        logger.warning("torn_record_removed", path=str(self._path), seq=wrong, problem=problem)

    def _take_off(self, seq: int, before: Head) -> None:
        with self._writing():
            self._db.execute("DELETE FROM records WHERE seq >= ?", (seq,))
            self._db.execute("DELETE FROM snapshots WHERE seq >= ?", (seq,))
            self._db.execute("UPDATE log SET seq = ?, hash = ?", (before.seq, before.hash))

    # -- writing -------------------------------------------------------------------------------------

    def write(self, pairs: Sequence[Pair]) -> None:
        expected = expected_by(pairs)
        with self._writing():
            got = self._head()
            if got != expected:
                raise HeadMoved((got.seq, got.hash), (expected.seq, expected.hash))
            self._db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?)",
                [(record.seq, record.prev, record.hash, data.decode()) for record, data in pairs],
            )
            last = pairs[-1][0]
            self._db.execute("UPDATE log SET seq = ?, hash = ?", (last.seq, last.hash))

    def save_snapshot(self, snapshot: Snapshot) -> None:
        seq = snapshot.head.seq
        with self._writing():
            row = self._db.execute("SELECT hash FROM records WHERE seq = ?", (seq,)).fetchone()
            if row is None or row[0] != snapshot.head.hash:
                raise InvalidHistory(seq, "got a snapshot as of this record, which this log does not hold")
            digest = hashlib.sha256(snapshot.state).hexdigest()
            self._db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)",
                (seq, snapshot.head.hash, digest, snapshot.state),
            )
            self._db.execute(
                "DELETE FROM snapshots WHERE seq NOT IN"
                " (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT ?)",
                (SNAPSHOTS_KEPT,),
            )

    def latest_snapshot(self) -> Snapshot | None:
        with self._reading():
            return self._latest_snapshot(self._head())

    def _latest_snapshot(self, head: Head) -> Snapshot | None:
        query = """
            SELECT s.seq, s.hash, s.digest, s.state, r.hash FROM snapshots s LEFT JOIN records r USING (seq)
            WHERE s.seq <= ? ORDER BY s.seq DESC
        """
        for seq, hash_, digest, state, in_log in self._db.execute(query, (head.seq,)):
            if hash_ == in_log and hashlib.sha256(state).hexdigest() == digest:
                return Snapshot(Head(seq, Digest(hash_)), state)
            logger.warning("snapshot_damaged", path=str(self._path), seq=seq)
        return None

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One consistent view of the file, for as long as it lasts."""
        try:
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise LogUnavailable(f"cannot read the log {self._path}: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that is on disk when it ends well, and never was when it doesn't."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogUnavailable(f"cannot write the log {self._path}: {error}") from error
