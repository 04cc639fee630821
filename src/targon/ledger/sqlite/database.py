"""The SQLite file that a log lies in: its tables, its header, its rows, and the lock of its one writer.

``log`` holds one row, the log's end, written in the same transaction as the records: a tail that went
missing shows. ``records`` holds each event in its canonical form, so that a record's hash is taken over
what is stored. The writer's lock is on a file beside the database; the kernel releases it when its holder
dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from targon.ledger.errors import CorruptLog, LogUnavailable
from targon.ledger.port import EMPTY
from targon.ledger.row import Row

APPLICATION_ID: Final = 0x5452474E
"""``TRGN`` in the file's header: this SQLite file is a log."""

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 10.0

_TABLES: Final = (
    "CREATE TABLE log"
    " (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL) STRICT",
    "CREATE TABLE records"
    " (seq INTEGER PRIMARY KEY, prev TEXT NOT NULL, hash TEXT NOT NULL, event TEXT NOT NULL) STRICT",
    "CREATE TABLE snapshots"
    " (seq INTEGER PRIMARY KEY, hash TEXT NOT NULL, digest TEXT NOT NULL, state BLOB NOT NULL) STRICT",
)

# As bytes: what is stored need not be UTF-8 any more when something damaged it.
_ROWS = """
SELECT seq, CAST(prev AS BLOB), CAST(hash AS BLOB), CAST(event AS BLOB) FROM records
WHERE seq >= ? AND seq < ? ORDER BY seq
"""


class Unreadable(CorruptLog):
    """SQLite itself cannot read a record: the file is damaged below the level of rows."""


def rows(connection: sqlite3.Connection, start: int, end: int) -> Iterator[Row]:
    """The stored records from ``start`` up to, not including, ``end``.

    Raises:
        Unreadable: naming the first record that SQLite cannot read.
    """
    at = start
    try:
        for stored in connection.execute(_ROWS, (at, end)):
            row = Row(*stored)
            yield row
            at = row.seq + 1
    except sqlite3.DatabaseError as error:
        if not is_malformed(error):
            raise
        yield from _rows_one_by_one(connection, at, end)


def _rows_one_by_one(connection: sqlite3.Connection, at: int, end: int) -> Iterator[Row]:
    """As :func:`rows`, but exact: a cursor steps one row ahead, and loses the good row before a bad one."""
    try:
        while stored := connection.execute(_ROWS + " LIMIT 1", (at, end)).fetchone():
            row = Row(*stored)
            yield row
            at = row.seq + 1
    except sqlite3.DatabaseError as error:
        if not is_malformed(error):
            raise
        raise Unreadable(at, f"it cannot be read: {error}") from error


class WriterLock:
    """Held by the one process that writes a log.

    Raises:
        LogUnavailable: if another one holds it.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(
            path.with_name(path.name + ".writer"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise LogUnavailable(
                f"the log {path} is being written by process {holder}, expected no other writer: "
                "stop that one first, or give this one a log of its own"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._fd)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode: every transaction is begun and ended by name."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'ro' if read_only else 'rwc'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def is_malformed(error: sqlite3.Error) -> bool:
    """Whether SQLite found the file itself damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT


def is_blank(connection: sqlite3.Connection) -> bool:
    """Whether a database holds nothing at all yet."""
    return not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]


def create_tables(connection: sqlite3.Connection) -> None:
    """Make a blank database a log without records."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    for table in _TABLES:
        connection.execute(table)
    connection.execute("INSERT INTO log VALUES (1, ?, ?)", (EMPTY.seq, EMPTY.hash))
    connection.execute("COMMIT")


def create_file(path: Path) -> None:
    """Make a log without records where there is no file; readers see it whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(connect(unfinished)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        create_tables(connection)
    unfinished.replace(path)


def check_header(path: Path) -> None:
    """Raise LogUnavailable if a file is there that is no SQLite database."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LogUnavailable(f"cannot open the log {path}: {error}") from error
    if start and start != b"SQLite format 3\x00":
        raise LogUnavailable(f"{path} is no log: it starts with {start!r}, expected an SQLite database")


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise LogUnavailable if a database is no log, or one of another version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise LogUnavailable(
            f"{path} is an SQLite database but no log: its application id is {application:#x}, "
            f"expected {APPLICATION_ID:#x}"
        )
    if version != SCHEMA_VERSION:
        raise LogUnavailable(
            f"the log {path} has schema version {version}, expected {SCHEMA_VERSION}: "
            "was it written by a newer release?"
        )
