"""Copy a verifier's log, its secret and its users' keys while it runs: backup.py DATA_FOLDER TARGET_FOLDER.

The log is copied as of one moment by SQLite's own means, checked, and only then put in the place of an older copy. Both
files are readable by their owner alone. Standard library only.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

LOG = "log.sqlite"
SECRET = "draws.secret"  # noqa: S105 - a file's name
KEYS = "keys.sqlite"
USAGE = "expected two folders: backup.py DATA_FOLDER TARGET_FOLDER (the verifier's --data.path, and where to copy it)"


class BackupError(Exception):
    """What was wrong, and what was expected."""


def back_up(data: Path, target: Path) -> int:
    """Copy log and secret, and keys of users if there are any; returns how many records the copy holds.

    Raises:
        BackupError: if there is nothing to copy, or the copy isn't whole.
    """
    for name in (LOG, SECRET):
        if not (data / name).is_file():
            raise BackupError(
                f"{data / name}: got no file, expected a verifier's {name}; check its --data.path"
            )
    if target.resolve() == data.resolve():
        raise BackupError(f"{target}: got the verifier's own folder, expected another one to copy to")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh, records = copied(data / LOG, target, "records")
    if (data / KEYS).is_file():
        keys, _ = copied(data / KEYS, target, "keys")
        sync(keys)
        keys.replace(target / KEYS)
    # the secret first: a log without its secret is of less use than the other way round
    write(target / f"{SECRET}.new", (data / SECRET).read_bytes())
    (target / f"{SECRET}.new").replace(target / SECRET)
    sync(fresh)
    fresh.replace(target / LOG)
    sync(target)
    return records


def copied(source: Path, folder: Path, table: str) -> tuple[Path, int]:
    """A whole copy of a database, beside an older one, and how many rows a table of it has.

    Raises:
        BackupError: if there is none.
    """
    fresh = folder / f"{source.name}.new"
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        return fresh, copy_database(source, fresh, table)
    except sqlite3.Error as error:
        fresh.unlink()
        raise BackupError(
            f"{source}: it cannot be copied ({error}); an older copy stays as it was"
        ) from error


def copy_database(source: Path, target: Path, table: str) -> int:
    """Copy a database that may be written meanwhile, and check the copy; returns the rows of a table."""
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as log,
        closing(sqlite3.connect(target)) as copy,
    ):
        log.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {verdict}")
        (rows,) = copy.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a name of ours
    return int(rows)


def write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have a file, or a folder's list of files, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        sys.exit(f"error: got {len(arguments)} arguments, {USAGE}")
    data, target = (Path(argument).expanduser() for argument in arguments)
    try:
        records = back_up(data, target)
    except (BackupError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{target}: {records} records and the secret; keep it where nobody else can read it")


if __name__ == "__main__":
    main(sys.argv[1:])
