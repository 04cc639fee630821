"""The files of a period: its texts, their leaves, and the secret, on disk before they are committed to.

``N.jsonl`` has a line for each leaf, the RFC 8785 form of ``{"source", "text"}``: what is revealed. ``N.leaves`` has
the 32 bytes of each leaf, ``N.places`` where each line begins, and the end (8 bytes each, big-endian). ``N.secret``
is the secret, readable by its owner alone. Files of a number that no commitment has are worth nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from targon.oracle.errors import Damaged, StoreUnavailable
from targon.oracle.passage import Passage
from targon.protocol.canonical import canonical_bytes
from targon.protocol.primitives import Digest
from targon.protocol.private_inputs import CommitmentBody, Tree, leaf_hash, salt_of, secret_digest

REVEAL_BYTES: Final = 1 << 17
"""Of a reveal that is read at once: more than the longest line has, of 5,000 characters of up to 6 bytes each."""
_ENDINGS: Final = ("jsonl", "leaves", "places", "secret")
_NAME: Final = re.compile(r"([0-9]+)\.(?:jsonl|leaves|places|secret)")


class PeriodFolder:
    """Where the periods' files lie. Its calls block.

    Raises:
        StoreUnavailable: if it can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise StoreUnavailable(f"{folder}: {error.strerror or error}") from error

    def write(self, number: int, secret: bytes, passages: Sequence[Passage]) -> Digest:
        """Write a period down, in place of what has its number; it is on disk when this returns.

        Returns:
            The root of its tree.

        Raises:
            StoreUnavailable: if it can't be written.
        """
        leaves = bytearray()
        ends = np.zeros(len(passages) + 1, dtype=">u8")
        end = 0
        try:
            with self._opened(number, "jsonl") as texts:
                for leaf, passage in enumerate(passages):
                    leaves += leaf_hash(salt_of(secret, leaf), passage.text, passage.source)
                    end += texts.write(_line(passage))
                    ends[leaf + 1] = end
                texts.sync()
            for ending, data in (
                ("leaves", bytes(leaves)),
                ("places", ends.tobytes()),
                ("secret", secret.hex().encode()),
            ):
                with self._opened(number, ending) as file:
                    file.write(data)
                    file.sync()
            sync_folder(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror or error}") from error
        return Tree(bytes(leaves)).root

    def open(self, body: CommitmentBody) -> PeriodTexts:
        """A period that was committed to.

        Raises:
            Damaged: if its files aren't what was committed to.
            StoreUnavailable: if they can't be read.
        """
        try:
            return PeriodTexts(self._folder, body)
        except FileNotFoundError as error:
            raise Damaged(str(self._folder), f"period {body.number}: {error.filename} is missing") from error
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror or error}") from error

    def numbers(self) -> set[int]:
        """Of the periods that have files.

        Raises:
            StoreUnavailable: if the folder can't be read.
        """
        try:
            found = [_NAME.fullmatch(each.name) for each in self._folder.iterdir()]
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror or error}") from error
        return {int(match[1]) for match in found if match is not None}

    def settle(self, body: CommitmentBody) -> None:
        """Look whether a period's files are what would be committed to, whole, and on disk.

        Raises:
            Damaged: if they aren't.
            StoreUnavailable: if they can't be read, or brought to the disk.
        """
        try:
            for ending in _ENDINGS:
                descriptor = os.open(self._path(body.number, ending), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            sync_folder(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror or error}") from error
        with self.open(body) as texts:
            texts.tree()

    def remove(self, number: int) -> None:
        """Forget a period.

        Raises:
            StoreUnavailable: if its files can't be removed.
        """
        try:
            for ending in _ENDINGS:
                with suppress(FileNotFoundError):
                    self._path(number, ending).unlink()
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror or error}") from error

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"{number}.{ending}"

    def _opened(self, number: int, ending: str) -> _NewFile:
        return _NewFile(self._path(number, ending))


class PeriodTexts:
    """The texts, leaves and secret of a period that was committed to. Its calls block.

    Leaves and places are read when they are first needed: to be revealed, a period needs neither.

    Raises:
        Damaged: if they aren't what was committed to.
        OSError: if they can't be read.
    """

    def __init__(self, folder: Path, body: CommitmentBody) -> None:
        self._folder = folder
        self.body = body
        try:
            self.secret = bytes.fromhex(self._content("secret").decode("ascii"))
        except ValueError:
            raise self._damaged("secret") from None
        if secret_digest(self.secret) != body.secret:
            raise self._damaged("secret")
        if (self._size("leaves"), self._size("places")) != (32 * body.leaves, 8 * (body.leaves + 1)):
            raise self._damaged("number of leaves")
        self._file = os.open(self._path("jsonl"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._path("places").open("rb") as places:
                places.seek(-8, os.SEEK_END)
                end = int.from_bytes(places.read(8), "big")
            if os.fstat(self._file).st_size != end:
                raise self._damaged("text")
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def tree(self) -> Tree:
        """The tree over its leaves. What :meth:`leaf` and :meth:`line` need is in memory from then on.

        Raises:
            Damaged: if it isn't the one that was committed to.
            StoreUnavailable: if it can't be read.
        """
        try:
            tree, _ = Tree(self._leaves), self._places
        except FileNotFoundError as error:
            raise self._damaged("text") from error
        except OSError as error:
            raise StoreUnavailable(f"{self._folder}: {error.strerror or error}") from error
        if tree.root != self.body.root:
            raise Damaged(
                f"period {self.body.number}",
                f"the root of its leaves is {tree.root}, expected {self.body.root}",
            )
        return tree

    def leaf(self, leaf: int) -> bytes:
        """The 32 bytes of a leaf."""
        return self._leaves[32 * leaf : 32 * (leaf + 1)]

    def line(self, leaf: int) -> bytes:
        """The RFC 8785 form of ``{"source", "text"}`` of a leaf, without its line break.

        Raises:
            Damaged: if the file has become shorter, or can't be read.
        """
        begin, end = int(self._places[leaf]), int(self._places[leaf + 1]) - 1
        try:
            line = os.pread(self._file, end - begin, begin)
        except OSError as error:
            raise Damaged(f"period {self.body.number}", f"leaf {leaf}: {error.strerror or error}") from error
        if len(line) != end - begin:
            raise Damaged(f"period {self.body.number}", f"the text of leaf {leaf} ends early")
        return line

    def revealed(self) -> Iterator[bytes]:
        """Every line, in pieces of whole ones.

        Raises:
            Damaged: if there is a line longer than any that was written, or the file has become shorter.
        """
        at, end = 0, os.fstat(self._file).st_size
        while at < end:
            piece = os.pread(self._file, REVEAL_BYTES, at)
            whole = piece.rfind(b"\n") + 1
            if not whole:
                raise self._damaged("text")
            yield piece[:whole]
            at += whole

    @cached_property
    def _leaves(self) -> bytes:
        leaves = self._content("leaves")
        if len(leaves) != 32 * self.body.leaves:
            raise self._damaged("number of leaves")
        return leaves

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        """Where each line begins, and the end."""
        told = self._content("places")
        if len(told) != 8 * (self.body.leaves + 1):
            raise self._damaged("number of leaves")
        places = np.frombuffer(told, dtype=">u8").astype(np.int64)
        if places[0] or places[-1] != os.fstat(self._file).st_size or np.any(np.diff(places) < 3):
            raise self._damaged("text")
        return places

    def _path(self, ending: str) -> Path:
        return self._folder / f"{self.body.number}.{ending}"

    def _size(self, ending: str) -> int:
        return self._path(ending).stat().st_size

    def _content(self, ending: str) -> bytes:
        return self._path(ending).read_bytes()

    def _damaged(self, what: str) -> Damaged:
        return Damaged(
            str(self._folder), f"period {self.body.number}: its {what} is not what was committed to"
        )


class _NewFile:
    """A file that is written from its start, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=1 << 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(passage: Passage) -> bytes:
    return canonical_bytes({"source": passage.source, "text": passage.text}) + b"\n"
