"""Which passages were ever taken: an SQLite file, so that none is taken twice, over restarts and crashes too.

``taken`` has a row for each passage ever, of 8 bytes of digest and as much of SQLite's own: a gigabyte for 60 million.
Near duplicates are looked for among the newest ``NEAR_KEPT`` alone, whose sketches lie in ``sketches`` (the passage's
number, by a place that is written over in turn) and ``runs`` (which passage had a hash last). What is held in memory
is SQLite's cache of ``CACHE_KIB``, however long the file.

One process owns the file, by a lock on another beside it, which the kernel releases when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from targon.oracle.database import connect
from targon.oracle.errors import StoreUnavailable
from targon.oracle.refining.likeness import SHARED, Likeness
from targon.oracle.refining.reasons import Reason

APPLICATION_ID: Final = 0x54524750
"""``TRGP`` in the file's header: this SQLite file says which passages were taken."""
SCHEMA_VERSION: Final = 1
NEAR_KEPT: Final = 1_000_000
"""Passages whose near duplicates are refused: some 300 megabytes."""
CACHE_KIB: Final = 16_384

_TABLES: Final = (
    "CREATE TABLE taken (digest INTEGER PRIMARY KEY) STRICT",
    "CREATE TABLE count (one INTEGER PRIMARY KEY CHECK (one = 1), passages INTEGER NOT NULL) STRICT",
    "CREATE TABLE runs (hash INTEGER PRIMARY KEY, passage INTEGER NOT NULL) STRICT",
    "CREATE TABLE sketches (place INTEGER PRIMARY KEY, hashes BLOB NOT NULL) STRICT",
    "INSERT INTO count VALUES (1, 0)",
)


class Taken:
    """The passages that were taken. Its calls block; one thread at a time makes them.

    Args:
        path: of the file; it and its folder are made on first use, readable by their owner alone, since who has a
            passage's digest can tell whether a text is that passage.
        near_kept: passages whose near duplicates are refused.

    Raises:
        StoreUnavailable: if another process owns the file, or it can't be read.
    """

    def __init__(self, path: Path, *, near_kept: int = NEAR_KEPT) -> None:
        self._path = path
        self._near_kept = near_kept
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(path)
        except OSError as error:
            raise StoreUnavailable(f"{path}: can't be opened: {error.strerror}") from error
        try:
            with self._as_ours():
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._db = _connect(path)
                self._passages = int(self._db.execute("SELECT passages FROM count").fetchone()[0])
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many were ever taken."""
        return self._passages

    def close(self) -> None:
        """Let another process own the file. What wasn't written yet is forgotten."""
        self._db.close()
        os.close(self._lock)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is taken within is on disk once this ends, all of it; or none, if it ends in an error.

        Raises:
            StoreUnavailable: if it can't be written.
        """
        before = self._passages
        with self._as_ours():
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._as_ours():
                self._db.execute("UPDATE count SET passages = ?", (self._passages,))
                self._db.execute("COMMIT")
        except BaseException:
            self._passages = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def take(self, one: Likeness) -> int | Reason:
        """Take a passage, within a batch: its number, from 0 without gaps; the reason where one like it was taken.

        Raises:
            StoreUnavailable: if it can't be written.
        """
        with self._as_ours():
            if self._db.execute("SELECT 1 FROM taken WHERE digest = ?", (one.digest,)).fetchone():
                return Reason.DUPLICATE
            if self._is_near(one.sketch):
                return Reason.NEAR_DUPLICATE
            self._db.execute("INSERT INTO taken VALUES (?)", (one.digest,))
            self._sketch(one.sketch)
        self._passages += 1
        return self._passages - 1

    def _is_near(self, sketch: tuple[int, ...]) -> bool:
        marks = ",".join("?" * len(sketch))
        found = self._db.execute(f"SELECT passage FROM runs WHERE hash IN ({marks})", sketch)  # noqa: S608 - marks alone
        return any(count >= SHARED for count in Counter(found.fetchall()).values())

    def _sketch(self, sketch: tuple[int, ...]) -> None:
        """Remember a sketch, and forget the one that it takes the place of."""
        place = self._passages % self._near_kept
        if self._passages >= self._near_kept:
            old = self._db.execute("SELECT hashes FROM sketches WHERE place = ?", (place,)).fetchone()
            gone = self._passages - self._near_kept
            self._db.executemany(
                "DELETE FROM runs WHERE hash = ? AND passage = ?",
                [(hashed, gone) for (hashed,) in struct.iter_unpack(">q", old[0] if old else b"")],
            )
        self._db.execute(
            "INSERT OR REPLACE INTO sketches VALUES (?, ?)", (place, struct.pack(f">{len(sketch)}q", *sketch))
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO runs VALUES (?, ?)", [(hashed, self._passages) for hashed in sketch]
        )

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"{self._path}: what was taken can't be read or written: {error}; look at its disk, or restore a "
                "backup. Without it, passages that were taken before may be taken again"
            ) from error


def _lock(path: Path) -> int:
    """A descriptor that holds the lock on a file."""
    descriptor = os.open(path.with_name(path.name + ".owner"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreUnavailable(
            f"{path}: process {holder} takes passages by it, expected no other: stop that one first, or give this one "
            "a file and a source of its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    return connect(
        path,
        application_id=APPLICATION_ID,
        version=SCHEMA_VERSION,
        tables=_TABLES,
        synchronous="FULL",  # a commit outlives a power cut
        cache_kib=CACHE_KIB,
    )
