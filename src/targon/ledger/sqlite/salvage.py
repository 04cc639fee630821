"""What to do when SQLite cannot read a log's file any more: keep what is whole, if that is all but the last.

A file that lost its end is shorter than its own header says, and SQLite then refuses every page of it.
Filled up with zeros, a copy of it can be read as far as it goes. If only the last record is gone (or none:
snapshots lie in the same file), the log is written anew without it; the damaged file is kept beside it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from targon.ledger.errors import CorruptLog, LogUnavailable
from targon.ledger.port import EMPTY, Head
from targon.ledger.row import Row
from targon.ledger.sqlite.database import Unreadable, connect, create_tables, rows
from targon.protocol.primitives import Digest

logger = structlog.get_logger(__name__)

_PAGE_SIZE: Final = slice(16, 18)
_PAGE_COUNT: Final = slice(28, 32)
"""Places in an SQLite header, big-endian; a page size of 1 means 65536 (sqlite.org/fileformat.html, §1.3)."""


def salvage(path: Path, problem: str) -> None:
    """Write a damaged log anew without its last record; the caller holds the writer's lock.

    Raises:
        CorruptLog: naming the first record that is lost, if it is not the last one.
        LogUnavailable: if not even the log's end can be read.
    """
    copy = _beside(path, ".salvage")
    for suffix in ("", "-wal"):
        if _beside(path, suffix).exists():
            shutil.copyfile(_beside(path, suffix), _beside(copy, suffix))
    try:
        _fill_up(copy)
        head, whole = _read_as_far_as_it_goes(copy)
    except sqlite3.Error as error:
        raise LogUnavailable(f"the log {path} is damaged beyond repair: {error}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            _beside(copy, suffix).unlink(missing_ok=True)
    if len(whole) < head.seq:
        raise CorruptLog(len(whole), f"{problem}; the log goes on to record {head.seq}")
    _write_anew(path, whole)
    logger.warning("log_salvaged", path=str(path), records=len(whole), expected=head.seq + 1, problem=problem)


def _fill_up(path: Path) -> None:
    with path.open("rb") as file:
        header = file.read(100)
    page_size = int.from_bytes(header[_PAGE_SIZE], "big")
    size = (65_536 if page_size == 1 else page_size) * int.from_bytes(header[_PAGE_COUNT], "big")
    if path.stat().st_size < size:
        os.truncate(path, size)


def _read_as_far_as_it_goes(path: Path) -> tuple[Head, list[Row]]:
    """Where the log ends by its own note, and its whole records from the first on."""
    whole: list[Row] = []
    with closing(connect(path)) as connection:
        seq, hash_ = connection.execute("SELECT seq, hash FROM log").fetchone()
        head, before = Head(seq, Digest(hash_)), EMPTY
        try:
            for row in rows(connection, 0, seq + 1):
                if row.problem(before):
                    break
                whole.append(row)
                before = Head(row.seq, Digest(row.hash.decode()))
        except Unreadable:
            pass  # as far as it goes
    return head, whole


def _write_anew(path: Path, whole: Sequence[Row]) -> None:
    anew = _beside(path, ".anew")
    anew.unlink(missing_ok=True)
    with closing(connect(anew)) as connection:
        create_tables(connection)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?)",
            [(row.seq, row.prev.decode(), row.hash.decode(), row.event.decode()) for row in whole],
        )
        if whole:
            connection.execute("UPDATE log SET seq = ?, hash = ?", (whole[-1].seq, whole[-1].hash.decode()))
        connection.execute("COMMIT")
    damaged = _beside(path, ".damaged")
    shutil.copyfile(path, damaged)
    # A write-ahead log belongs to its own database: it must not outlive it beside another.
    for suffix in ("-wal", "-shm"):
        if _beside(path, suffix).exists():
            _beside(path, suffix).replace(_beside(damaged, suffix))
    anew.replace(path)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
