"""The log in a file: its folder can be written, the secret beside it is whole, and nobody else writes it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from targon.doctor.examination import Check, blocking
from targon.doctor.findings import Result, bad, good, note
from targon.doctor.locks import held_by
from targon.doctor.machine import PROC, room_of
from targon.ledger import Log, SqliteLog
from targon.protocol.draws import SECRET_BYTES


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """A log in a file of a folder, with the verifier's secret beside it."""

    folder: Path
    proc: Path = PROC

    @property
    def file(self) -> Path:
        return self.folder / "log.sqlite"

    @property
    def checks(self) -> Sequence[Check]:
        return (
            Check("data folder", blocking(lambda: check_folder(self.folder))),
            Check("secret", blocking(lambda: check_secret(self.folder, begun=self.file.exists()))),
            Check("writer", blocking(lambda: check_writer(self.file, self.proc))),
        )

    @property
    def needed(self) -> tuple[Check, ...]:
        return ()

    @property
    def flag(self) -> str:
        return "--data.path"

    @property
    def larger(self) -> str:
        return "a larger disk (--data.path)"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Log | None, None]:
        if not await anyio.Path(self.file).exists():
            yield None
            return
        async with aclosing(await SqliteLog.open(self.file, read_only=True)) as log:
            yield log

    async def size(self) -> int | None:
        return await anyio.to_thread.run_sync(_size, self.file)

    async def room(self) -> int | None:
        return (await anyio.to_thread.run_sync(room_of, self.folder)).free


def check_folder(folder: Path) -> Result:
    """Files can be made in the folder, or it can be made."""
    if folder.exists() and not folder.is_dir():
        return bad(f"{folder} is a file, expected a folder", "give a folder as --data.path")
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        return bad(
            f"{there} can't be written by this user",
            f"sudo chown -R {os.getuid()} {there}, or give a folder of this user's as --data.path",
        )
    return good(f"{folder} can be written" if there == folder else f"{folder} can be made in {there}")


def check_secret(folder: Path, *, begun: bool) -> Result:
    """The secret that draws are made from is there, whole, and nobody else's to read.

    Args:
        begun: whether there is a log already, which was drawn from it.
    """
    path = folder / "draws.secret"
    if not path.exists():
        if begun:
            return bad(
                f"there is a log and no {path}: no open interval's draws can be revealed without it",
                "restore it from a backup, or begin anew with another --data.path",
            )
        return good("the verifier makes it at its first start")
    status = path.stat()
    if status.st_size != SECRET_BYTES:
        return bad(
            f"{path} has {status.st_size} bytes, expected {SECRET_BYTES}: it was damaged",
            "restore it from a backup, or begin anew with another --data.path",
        )
    if status.st_mode & 0o077:
        return bad(
            f"{path} has mode {status.st_mode & 0o777:04o}, expected 0600: who can read it foresees every draw",
            f"chmod 600 {path}",
        )
    return good(f"{path}, for its owner alone")


def check_writer(file: Path, proc: Path) -> Result:
    """Nobody else writes the log."""
    lock = file.with_name(file.name + ".writer")
    try:
        holder = held_by(lock, proc)
    except OSError as error:
        return note(f"not checked: the system's list of locks can't be read ({error.strerror})")
    if holder is None:
        return good("nobody writes it")
    return note(
        f"{holder} writes it now. A second verifier would be refused",
        f"stop that one before you start another on this folder: kill {holder.pid}",
    )


def _size(file: Path) -> int:
    sizes: Callable[[Path], int] = lambda one: one.stat().st_size if one.exists() else 0  # noqa: E731
    return sizes(file) + sizes(file.with_name(file.name + "-wal"))
