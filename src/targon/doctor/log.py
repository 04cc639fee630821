"""The verifier's log: it can be written, nobody else writes it, it is whole, and it is ours.

Where the log lies is a :class:`LogPlace`, with the checks that only such a place needs; the checks of the log itself
are the same for all. Nothing is written here, and nothing repaired.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread
from packaging.version import InvalidVersion, Version

from targon.doctor.chain import Link
from targon.doctor.examination import Check, blocking
from targon.doctor.findings import Result, bad, good, note
from targon.ledger import CorruptLog, LedgerError, Log, LogOpened, SqliteLog
from targon.protocol.draws import SECRET_BYTES
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block
from targon.protocol.profile import Profile

READ_S: Final = 30.0
"""Records are checked for so long; a log of months takes longer, and its newest part is checked at each opening."""
PROC: Final = Path("/proc")


class LogPlace(Protocol):
    """Where a log lies."""

    @property
    def checks(self) -> Sequence[Check]:
        """What only a place of this kind needs, in order."""
        ...

    @property
    def needed(self) -> tuple[Check, ...]:
        """Those of them without which the log can't be opened."""
        ...

    async def open(self) -> Log | None:
        """The log, for reading; None: there is none yet."""
        ...

    async def size(self) -> int | None:
        """Bytes that it takes; None: not known."""
        ...


@dataclass(frozen=True, slots=True)
class Story:
    """What a log says of itself."""

    opened: LogOpened
    records: int
    whole: bool
    """Whether every record was read, and not only the first ones."""
    first: Block
    last: Block
    size: int | None

    def bytes_per_day(self, block_seconds: float) -> float | None:
        """How fast it grew; None if it is too short to tell."""
        if self.size is None or not self.whole or self.last <= self.first:
            return None
        return self.size / ((self.last - self.first) * block_seconds) * 86_400


async def check_log(place: LogPlace) -> Result:
    """Every record is what its hash says. Hands on the log's :class:`Story`."""
    restore = "keep the file, and restore the log from a copy; or begin anew with another --data.path"
    try:
        log = await place.open()
        if log is None:
            return good("there is none yet; the verifier begins one at its first start")
        async with aclosing(log):
            return await _read(log, await place.size())
    except CorruptLog as error:
        if error.torn:
            return note(f"its last record is torn: {error}", "start the verifier")
        return bad(f"it is damaged: {error}", restore)
    except LedgerError as error:
        return bad(str(error), "give the folder of a verifier's log as --data.path")


async def _read(log: Log, size: int | None) -> Result:
    head = await log.head()
    opened: LogOpened | None = None
    blocks: list[Block] = []
    records, whole = 0, False
    with anyio.move_on_after(READ_S):
        async with aclosing(log.read()) as reading:
            async for record in reading:
                records += 1
                opened = opened or (record.event if isinstance(record.event, LogOpened) else None)
                if (block := getattr(record.event, "block", None)) is not None:
                    blocks = [blocks[0] if blocks else block, block]
        whole = True
    if opened is None:
        return good("it is empty; the verifier begins it at its first start")
    first, last = blocks or (Block(0), Block(0))
    story = Story(opened, records, whole, first, last, size)
    found = f"{records} records, up to block {last}; each is what its hash says"
    if whole:
        return good(found, value=story)
    return note(
        f"the first {found}; of {head.seq + 1} in all, the others were not read within {READ_S:g} s",
        "nothing needs to be done: the newest records are checked when a verifier opens the log",
        value=story,
    )


async def check_whose(story: Story, signer: Signer, profile: Profile) -> Result:
    """The log is this verifier's, under the rules that it will run by."""
    opened = story.opened
    if opened.verifier != signer.ss58_address:
        return bad(
            f"it is the log of verifier {opened.verifier}, expected {signer.ss58_address}",
            "give this verifier another --data.path, or the wallet that began the log",
        )
    differing = [
        f"{name} {getattr(opened.profile, name)!r}, expected {getattr(profile, name)!r}"
        for name in type(profile).model_fields
        if getattr(opened.profile, name) != getattr(profile, name)
    ]
    if differing:
        return bad(
            f"it was begun under other rules: {'; '.join(differing)}",
            "go on with the log's own --profile and --neuron.moving_average_alpha, or give another --data.path",
        )
    return good(f"begun by this hotkey, under the profile {profile.name!r}")


async def check_network(story: Story, link: Link) -> Result:
    """The log is of the network that the chain is."""
    opened, info = story.opened, link.info
    if (opened.genesis, opened.netuid) != (info.genesis, info.netuid):
        return bad(
            f"it is of subnet {opened.netuid} on the chain with genesis {opened.genesis[:12]}…, expected subnet "
            f"{info.netuid} on {info.genesis[:12]}…",
            "give this verifier another --data.path, or name the log's own network",
        )
    return good(f"of this chain, and of subnet {info.netuid}")


async def check_software(story: Story, version: str) -> Result:
    """No newer software began the log."""
    name = story.opened.software
    try:
        newer = Version(name.partition(" ")[2]) > Version(version)
    except InvalidVersion:
        return note(f"begun by {name!r}, of which the version can't be told")
    if newer:
        return bad(
            f"begun by {name}, which is newer than this, {version}",
            "upgrade targon to that version or later",
        )
    return good(f"begun by {name}; this is {version}")


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

    async def open(self) -> Log | None:
        if not await anyio.Path(self.file).exists():
            return None
        return await SqliteLog.open(self.file, read_only=True)

    async def size(self) -> int | None:
        return await anyio.to_thread.run_sync(_size, self.file)


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
    """Nobody else writes the log. Looked up in the kernel's list: trying the lock could stop one who starts."""
    lock = file.with_name(file.name + ".writer")
    if not lock.exists():
        return good("nobody writes it")
    try:
        locks = (proc / "locks").read_text("utf-8").splitlines()
    except OSError as error:
        return note(f"not checked: the system's list of locks can't be read ({error.strerror})")
    inode = str(lock.stat().st_ino)
    held = any(_inode(fields) == inode for fields in map(str.split, locks) if len(fields) > 5)
    if not held:
        return good("nobody writes it")
    holder = lock.read_text("ascii", "replace").strip()
    return note(
        f"process {holder} writes it now: {_command(proc, holder)}. A second verifier would be refused",
        f"stop that one before you start another on this folder: kill {holder}",
    )


def _inode(fields: list[str]) -> str:
    """Of a line of ``/proc/locks``: ``1: FLOCK ADVISORY WRITE 6069 fe:00:2146871 0 EOF``."""
    return fields[5].rpartition(":")[2]


def _command(proc: Path, pid: str) -> str:
    try:
        words = (proc / pid / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "its command can't be seen"
    return b" ".join(words).decode("utf-8", "replace").strip()[:120]


def _size(file: Path) -> int:
    sizes: Callable[[Path], int] = lambda one: one.stat().st_size if one.exists() else 0  # noqa: E731
    return sizes(file) + sizes(file.with_name(file.name + "-wal"))
