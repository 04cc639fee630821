"""SQLite files of an oracle's own: made where they are blank, known by their header, in autocommit mode."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

BUSY_TIMEOUT_S: Final = 10.0


def connect(
    path: Path,
    *,
    application_id: int,
    version: int,
    tables: Sequence[str],
    synchronous: Literal["NORMAL", "FULL"],
    cache_kib: int,
) -> sqlite3.Connection:
    """A connection to a file of ours; threads may take turns with it.

    Args:
        application_id: what the file is, in its header.
        version: of its tables.
        tables: statements that make them.
        synchronous: whether a commit outlives a power cut (FULL), or only a crash.
        cache_kib: memory that SQLite keeps pages in.

    Raises:
        sqlite3.Error: if the file is another program's or version's, damaged, or can't be opened. It is as it was.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN IMMEDIATE")  # another process may be making it
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.execute(f"PRAGMA application_id = {application_id}")
            connection.execute(f"PRAGMA user_version = {version}")
            for statement in tables:
                connection.execute(statement)
        connection.execute("COMMIT")
        found = tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if found != (application_id, version):
            raise sqlite3.DatabaseError(
                f"its application id and version are {found[0]:#x} and {found[1]}, expected {application_id:#x} and "
                f"{version}"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    except BaseException:
        connection.close()
        raise
    return connection
