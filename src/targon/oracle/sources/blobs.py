"""Files as bytes that can be read at any place: local ones here, those of web servers in ``web.py``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.skipped import Skipped, Unreadable, plain


class Blob(Protocol):
    """Bytes of a known size."""

    @property
    def name(self) -> str:
        """Relative to its source, the same on every machine."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def near(self) -> bool:
        """Whether reading at another place costs nothing but the reading."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """That many bytes from there, or what there is up to the end.

        Raises:
            Unreadable: if they can't be had.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds, until it is read again."""
        ...


class LocalBlob:
    """A file. It is opened for each reading, so that any number of them needs no descriptors."""

    __slots__ = ("_path", "name", "size")

    def __init__(self, path: str, name: str, size: int) -> None:
        self._path = path
        self.name = name
        self.size = size

    @property
    def near(self) -> bool:
        return True

    def read(self, start: int, length: int) -> bytes:
        wanted = min(length, self.size - start)
        if wanted <= 0:
            return b""
        try:
            # were it a pipe by now, opening and reading it would wait otherwise
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, wanted, start)
                while len(data) < wanted and (
                    more := os.pread(descriptor, wanted - len(data), start + len(data))
                ):
                    data += more
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unreadable("unreadable", str(error), start) from error
        if len(data) < wanted:
            raise Unreadable("shrunk", f"got {len(data)} bytes at {start}, expected {wanted}", start)
        return data

    def close(self) -> None:
        """It holds nothing between two readings."""


def feeds(blob: Blob, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """A blob from a place to its end, as (position, bytes) of that size each."""
    for position in range(start, blob.size, size):
        yield position, blob.read(position, size)


def local_blobs(place: Path, skipped: Skipped, endings: Sequence[str]) -> list[LocalBlob]:
    """The files of a folder and of all folders in it, or the one file, by name.

    Links are followed within the folder, each folder once; one that leads out of it is left out, since who fills the
    folder may not be who may read what it leads to. What is no file, is empty, or has another ending is left out, too.
    """
    listed = _walk(place, skipped) if place.is_dir() else [(str(place), place.name)]
    found = sorted(listed, key=lambda pair: pair[1])
    blobs = []
    for _, name in found[LIMITS.files :]:
        skipped.note("too_many", name)
    for path, name in found[: LIMITS.files]:
        try:
            status = os.stat(path)  # noqa: PTH116 - half the time of a folder of many files
        except OSError as error:
            skipped.note("unreadable", name, str(error))
            continue
        if not stat.S_ISREG(status.st_mode):
            skipped.note("unreadable", name, "it is no file")
        elif not name.lower().endswith(tuple(endings)):
            skipped.note("unknown_format", name)
        elif status.st_size:
            blobs.append(LocalBlob(path, name, status.st_size))
    return blobs


def _walk(folder: Path, skipped: Skipped) -> Iterator[tuple[str, str]]:
    root = f"{os.path.realpath(folder)}{os.sep}"
    pending = [(str(folder), "")]
    seen: set[tuple[int, int]] = set()
    while pending:
        here, prefix = pending.pop()
        try:
            status = Path(here).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.note("unreadable", prefix or here, str(error))
            continue
        for entry in inside:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not f"{os.path.realpath(entry.path)}{os.sep}".startswith(root):
                skipped.note("unreadable", _shown(prefix + entry.name), "a link that leads out of the folder")
            elif _is_folder(entry):
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield entry.path, _shown(prefix + entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: looking at it as a file will say so
        return False


def _shown(name: str) -> str:
    """A file's name as text on one line, whatever bytes it is made of."""
    return plain(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
