"""The machine: room on the disk, memory, and files that may be open at once."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targon.doctor.findings import Finding, Outcome, Result, bad, good, note

PROC: Final = Path("/proc")
CGROUP: Final = Path("/sys/fs/cgroup")
MIB: Final = 1 << 20
GIB: Final = 1 << 30

LEAST_FREE: Final = 512 * MIB
"""Below this, SQLite's write-ahead log, a snapshot and a converted model (269 MB) no longer fit together."""
LOW_FREE: Final = 5 * GIB
"""Below this, it is worth a look: an upgrade brings some 400 MB of packages, and keeps the old ones meanwhile."""
LEAST_INODES: Final = 1_000
"""Each file takes one: a virtual environment has tens of thousands, but nothing new is made of those while running."""

LEAST_MEMORY: Final = 512 * MIB
"""A role without an engine takes 150 to 250 MB."""
FILES: Final = {"prover": 1_024 + 256, "verifier": 256 + 256, "oracle": 64 * 16 + 256}
"""Connections that a role may hold (of a prover: ``Limits.max_connections``; of a verifier: its client's; of an oracle:
those of a subnet's 64 verifiers that ask for 16 places each, at once), and 256 for files, the engine and the chain."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on the disk that a folder lies on."""

    free: int
    """Bytes, for users who aren't root."""
    inodes: int | None
    """None: this file system doesn't count them."""


def room_of(folder: Path) -> Room:
    """What is free where a folder lies, or would lie."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    status = os.statvfs(there)
    return Room(status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None)


def judge_disk(room: Room, folder: Path) -> Result:
    """Whether there is room for what is written while a role runs."""
    free = f"{amount(room.free)} free for {folder}"
    advice = f"make room there, or give a folder on another disk (du -xh {folder} | sort -h | tail shows what is large)"
    if room.inodes is not None and room.inodes < LEAST_INODES:
        return bad(f"{free}, but only {room.inodes} more files can be made, expected {LEAST_INODES}", advice)
    if room.free < LEAST_FREE:
        return bad(f"{free}, expected {amount(LEAST_FREE)} at least", advice)
    if room.free < LOW_FREE:
        return note(f"{free}, which is little: {amount(LOW_FREE)} let an upgrade be tried, too", advice)
    return good(free)


def available_memory(proc: Path, cgroup: Path) -> int | None:
    """Bytes that may still be taken: by the machine's own count, and by the limit of our control group (v2)."""
    bounds = []
    for line in _text(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            bounds.append(int(value.split()[0]) * 1024)
    own = _text(proc / "self" / "cgroup").strip().rpartition("::")[2].lstrip("/")
    limit, used = _text(cgroup / own / "memory.max").strip(), _text(cgroup / own / "memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        bounds.append(max(0, int(limit) - int(used)))
    return min(bounds, default=None)


def judge_memory(available: int | None, needed: int) -> Result:
    """Whether the role fits into memory, with its engine where that runs here."""
    if available is None:
        return note("not checked: the system doesn't say how much memory is available")
    found = f"{amount(available)} available"
    if available < needed:
        return bad(
            f"{found}, expected {amount(needed)}",
            "stop other programs, raise the limit of the container, or use an engine that runs elsewhere: --engine.url",
        )
    return good(f"{found}; {amount(needed)} are needed")


def judge_files(soft: int, hard: int, needed: int) -> Result:
    """Whether as many files and connections may be open at once as the role can need."""
    unlimited = resource.RLIM_INFINITY
    if soft in (unlimited, -1) or soft >= needed:
        count = "any number of" if soft in (unlimited, -1) else str(soft)
        return good(f"{count} files and connections may be open at once")
    outcome: Outcome = "bad" if soft < needed / 4 else "note"
    how = (
        f"ulimit -n {needed}"
        if hard in (unlimited, -1) or hard >= needed
        else f"raise the hard limit ({hard}) as root"
    )
    return Result(
        (
            Finding(
                outcome,
                f"{soft} files and connections may be open at once, expected {needed}",
                f"{how}; under systemd LimitNOFILE={needed}",
            ),
        )
    )


def amount(size: float) -> str:
    """Bytes, for people."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1024:,.1f} KiB"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
