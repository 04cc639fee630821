"""An oracle's own commitments: a file that is only ever appended to, a line each, on disk before anyone sees it.

What stands in it can't be taken back: somebody may have it, signed. So a file that is damaged before its last line is
never mended, and nothing is ever written in place of a line that was whole.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import structlog

from targon.oracle.errors import Damaged, StoreUnavailable
from targon.oracle.periods import sync_folder
from targon.protocol.errors import ProtocolError
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.private_inputs import NO_COMMITMENT, Commitment, CommitmentBody, check_commitment

KEPT: Final = 8
"""Of the newest commitments, in memory: those that are asked for."""
MOST_AT_ONCE: Final = 64
MOST_BYTES: Final = 1 << 20
"""How many commitments are told at once: 64, or fewer of more than this together (but one)."""

logger = structlog.get_logger("targon.oracle")


class CommitmentBook:
    """The commitments of one oracle on one subnet. Its calls block; one thread at a time appends.

    Raises:
        Damaged: if the file isn't what this oracle wrote.
        StoreUnavailable: if it can't be read or written.
    """

    def __init__(self, path: Path, *, genesis: Digest, netuid: int, oracle: Hotkey) -> None:
        self._path = path
        self._ours = (genesis, netuid, oracle)
        self._offsets = [0]
        """Where each line begins, and the file's end."""
        self._newest: tuple[tuple[Commitment, bytes], ...] = ()
        """With their lines, made once: anybody may ask for them, however often. It is replaced, never changed, since
        one thread appends while others read."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            self._read()
        except OSError as error:
            os.close(self._file)
            raise self._unavailable(error) from error
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def last(self) -> CommitmentBody | None:
        """The newest one's body; None before the first."""
        return self._newest[-1][0].body if self._newest else None

    @property
    def previous(self) -> Digest:
        """What the next one has to name."""
        return NO_COMMITMENT if self.last is None else self.last.digest()

    def with_block(self, block: Block) -> Commitment | None:
        """The commitment whose period has a block, among the newest."""
        return next((one for one, _ in self._newest if one.body.first <= block <= one.body.last), None)

    def newest_from(self, block: Block) -> list[Commitment]:
        """Those of the newest whose period isn't over before a block, oldest first."""
        return [one for one, _ in self._newest if one.body.last >= block]

    def append(self, commitment: Commitment, *, in_time: Callable[[], bool] = lambda: True) -> bool:
        """Write down a commitment. It is on disk when this returns; if it fails, it isn't in the book.

        Args:
            in_time: asked once it is on disk, and nobody has seen it: if it is too late by then, it is taken back.

        Returns:
            Whether it was in time.

        Raises:
            PrivateInputMismatch: if it doesn't follow the newest.
            StoreUnavailable: if it can't be written.
        """
        self._check(commitment, len(self), self.last)
        end, line = self._offsets[-1], commitment.to_bytes()
        try:
            os.ftruncate(self._file, end)  # where one that failed could not be taken back
            self._write(line + b"\n", end)
            if not in_time():
                os.ftruncate(self._file, end)
                os.fsync(self._file)
                return False
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, end)
            raise self._unavailable(error) from error
        self._keep(commitment, line)
        self._offsets.append(end + len(line) + 1)
        return True

    def commitment(self, number: int) -> Commitment:
        """Any of them.

        Raises:
            IndexError: if there is none of that number.
            Damaged, StoreUnavailable: if it can't be read.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        newest = self._newest
        oldest = newest[0][0].body.number
        return newest[number - oldest][0] if number >= oldest else self._parsed(number)

    def lines(self, start: int) -> list[bytes]:
        """Commitments from a number on, in their canonical form: a bounded piece, empty where there is none.

        Raises:
            StoreUnavailable: if they can't be read.
        """
        found: list[bytes] = []
        size = 0
        for number in range(start, min(len(self), start + MOST_AT_ONCE)):
            line = self._line(number)
            size += len(line)
            if found and size > MOST_BYTES:
                break
            found.append(line)
        return found

    def recent_lines(self, start: int) -> list[bytes] | None:
        """As :meth:`lines` where all of it is in memory, without blocking; None where it isn't."""
        newest = self._newest
        if newest and start < newest[0][0].body.number:
            return None
        found: list[bytes] = []
        for commitment, line in newest:
            if commitment.body.number >= start and (not found or sum(map(len, found)) < MOST_BYTES):
                found.append(line)
        return found

    def _keep(self, commitment: Commitment, line: bytes) -> None:
        self._newest = (*self._newest, (commitment, line))[-KEPT:]

    def _write(self, data: bytes, at: int) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], at + written)
        os.fsync(self._file)

    def _read(self) -> None:
        size, at, line_begins = os.fstat(self._file).st_size, 0, 0
        while at < size:
            piece = os.pread(self._file, 1 << 20, at)
            if not piece:
                break
            place = -1
            while (place := piece.find(b"\n", place + 1)) >= 0:
                line_begins = at + place + 1
                self._offsets.append(line_begins)
            at += len(piece)
        if line_begins < size:
            # the process ended while it wrote: nobody was shown that line
            logger.warning("unfinished_commitment_removed", file=str(self._path), bytes=size - line_begins)
            os.ftruncate(self._file, line_begins)
            os.fsync(self._file)
        sync_folder(self._path.parent)
        before: CommitmentBody | None = None
        for number in range(max(0, len(self) - KEPT), len(self)):
            commitment = self._parsed(number)
            try:
                self._check(commitment, number, before)
            except ProtocolError as error:
                raise Damaged(str(self._path), f"line {number + 1}: {error}") from error
            self._keep(commitment, self._line(number))
            before = commitment.body

    def _check(self, commitment: Commitment, number: int, before: CommitmentBody | None) -> None:
        body = commitment.body
        check_commitment(commitment, before)
        if (body.genesis, body.netuid, body.oracle) != self._ours or body.number != number:
            raise Damaged(
                str(self._path),
                f"commitment {body.number} of {body.oracle} on subnet {body.netuid} of {body.genesis[:16]}, expected "
                f"{number} of {self._ours[2]} on subnet {self._ours[1]} of {self._ours[0][:16]}; each oracle, and "
                "each network, has a folder of its own (--data.path)",
            )

    def _parsed(self, number: int) -> Commitment:
        try:
            return Commitment.from_bytes(self._line(number))
        except ProtocolError as error:
            raise Damaged(str(self._path), f"line {number + 1}: {error}") from error

    def _line(self, number: int) -> bytes:
        begin, end = self._offsets[number], self._offsets[number + 1] - 1
        try:
            line = os.pread(self._file, end - begin, begin)
        except OSError as error:
            raise self._unavailable(error) from error
        if len(line) != end - begin:
            raise Damaged(str(self._path), f"line {number + 1} ends early")
        return line

    def _unavailable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{self._path}: {error.strerror or error}")


def last_seen(path: Path, now_s: float) -> tuple[Block, float] | None:
    """A block that the chain had about reached when a book was written last, and how many seconds ago that was; None
    if nothing stands in it. It blocks.

    Raises:
        Damaged, StoreUnavailable: as :func:`newest_written`.
    """
    _, newest = newest_written(path, 1)
    if not newest:
        return None
    try:
        written_s = path.stat().st_mtime
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror or error}") from error
    return newest[0].body.first, max(0.0, now_s - written_s)


def newest_written(path: Path, count: int = 2) -> tuple[int, Sequence[Commitment]]:
    """How many commitments a book holds, and the newest of them, oldest first. Changes nothing; it blocks.

    Raises:
        Damaged: if they can't be read.
        StoreUnavailable: if the file can't be.
    """
    number, lines = 0, deque[bytes](maxlen=count)
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # else it is being written
                    number += 1
                    lines.append(line)
    except (FileNotFoundError, NotADirectoryError):
        return 0, ()
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror or error}") from error
    found = []
    for each, line in enumerate(lines, number - len(lines)):
        try:
            commitment = Commitment.from_bytes(line[:-1])
            check_commitment(commitment)
        except ProtocolError as error:
            raise Damaged(str(path), f"line {each + 1}: {error}") from error
        if commitment.body.number != each:
            raise Damaged(str(path), f"line {each + 1}: commitment {commitment.body.number}, expected {each}")
        found.append(commitment)
    return number, found
