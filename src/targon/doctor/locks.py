"""Who holds a lock, looked up in the kernel's list: trying the lock could stop one who starts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class LockHolder(NamedTuple):
    """A process that holds a lock."""

    pid: str
    command: str
    """As far as it can be seen."""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def held_by(lock: Path, proc: Path) -> LockHolder | None:
    """The process that holds a lock (``flock``) on a file; None: nobody does.

    Raises:
        OSError: if the list can't be read.
    """
    if not lock.exists():
        return None
    lines = (proc / "locks").read_text("utf-8").splitlines()
    inode = str(lock.stat().st_ino)
    for line in lines:
        fields = line.split()  # 1: FLOCK ADVISORY WRITE 6069 fe:00:2146871 0 EOF
        if len(fields) > 5 and fields[5].rpartition(":")[2] == inode:
            return LockHolder(fields[4], _command(proc, fields[4]))
    return None


def _command(proc: Path, pid: str) -> str:
    try:
        words = (proc / pid / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "its command can't be seen"
    return b" ".join(words).decode("utf-8", "replace").strip()[:120]
