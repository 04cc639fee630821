"""Drawing from files of JSON lines: plain, gzip and zstd.

How a file is drawn from depends on what it allows:

- Plain files on this machine: a place is drawn among all bytes of all of them, and the line that holds it is taken with
  probability characters / bytes. Draws are independent of one another.
- Everything else: a *window* of the file is drawn, a run of its bytes as it lies there, and the lines that begin in it
  are thinned. A window may begin before the file and end behind it, so that each byte is in as many of them.
  Files with members are entered at the first one in the window; others are unpacked from the front.
- Compressed files without members that are too large for that are read from front to back, one after the other in
  random order, each once in a *pass*; a window is the next piece. Within a pass no character is more likely
  than another, but the first draws are from a file's front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Final

from targon.oracle.ports import Document
from targon.oracle.sources.blobs import Blob
from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.lines import line_at, lines, place, text_of
from targon.oracle.sources.sampling import BARREN, Pace, Part, Patience, Weighted, thin, times
from targon.oracle.sources.skipped import Skipped, Unreadable
from targon.oracle.sources.streams import (
    GZIP_MAGIC,
    ZSTD_MAGIC,
    Piece,
    gzip_pieces,
    has_members,
    plain_pieces,
    starts,
    zstd_pieces,
)

ENDINGS: Final = tuple(
    kind + packed for kind in (".jsonl", ".json", ".ndjson") for packed in ("", ".gz", ".zst", ".zstd")
)
_Read = Callable[[], tuple[str, str] | None]


def json_parts(blobs: Sequence[Blob], pace: Pace, skipped: Skipped, random: Random) -> list[Part]:
    """The parts of files of JSON lines, by their names' endings."""
    near = [blob for blob in blobs if blob.near and not _magic(blob.name)]
    others = [blob for blob in blobs if not blob.near or _magic(blob.name)]
    passes = Passes([blob for blob in others if is_large(blob)], pace, skipped, random)
    parts: list[Part] = [Windows(blob, pace, skipped, passes) for blob in others]
    return [*parts, Places(near, pace, skipped)] if near else parts


def is_large(blob: Blob) -> bool:
    """Whether a file can be entered only where it has members."""
    return bool(_magic(blob.name)) and blob.size > LIMITS.enter_bytes


class Places:
    """Plain files on this machine, drawn from byte by byte."""

    name = "files of JSON lines"
    sheds = True

    def __init__(self, blobs: Sequence[Blob], pace: Pace, skipped: Skipped) -> None:
        self._blobs = Weighted(blobs, lambda blob: float(blob.size))
        self._draws = pace.intensity
        self._skipped = skipped
        self._patience = Patience[Blob]()

    @property
    def weight(self) -> float:
        return self._blobs.sum

    def visit(self, random: Random) -> Iterator[Document]:
        for _ in range(self._draws):
            if not self._blobs:
                return
            blob = self._blobs.draw(random)
            document, readable = self._draw(blob, random)
            if self._patience.spent(blob, gave=readable, skipped=not readable, failing=BARREN):
                self._skipped.note("dropped", blob.name, say=False)
                self._blobs.drop(blob)
            if document is not None:
                yield document

    def _draw(self, blob: Blob, random: Random) -> tuple[Document | None, bool]:
        start = 0
        try:
            start, line, span = line_at(blob, random.randrange(blob.size))
            text, address = text_of(line)
        except Unreadable as error:
            self._skipped.note(error.reason, blob.name, f"at {max(start, error.at)}: {error.detail}")
            return None, False
        if not times(random, len(text) / span):
            return None, True
        return Document(text, place(blob.name, start, address), random.random()), True


class Windows:
    """One file, drawn from window by window."""

    sheds = False

    def __init__(self, blob: Blob, pace: Pace, skipped: Skipped, passes: Passes) -> None:
        self.name = blob.name
        self.weight = float(blob.size + pace.window)
        self._blob = blob
        self._pace = pace
        self._skipped = skipped
        self._passes = passes
        self._magic = _magic(blob.name)
        self._members: bool | None = None

    def visit(self, random: Random) -> Iterator[Document | None]:
        if self._members is None:
            self._members = bool(self._magic) and has_members(self._blob, self._magic)
        if is_large(self._blob) and not self._members:
            # no window begins before the file or ends behind it, so it is read on only so often
            if random.random() * self.weight < self._blob.size:
                yield from self._passes.visit(random)
            return
        start = random.randrange(-self._pace.window, self._blob.size)
        end = start + self._pace.window
        yield from thin(self._records(start, end), self._pace.gap, random)

    def _records(self, start: int, end: int) -> Iterator[tuple[int, _Read]]:
        for _ in range(LIMITS.attempts):
            if start >= end:
                return
            try:
                found = lines(self._pieces(start, end), whole=start <= 0, end=end)
                yield from _readable(self._blob, found, self._skipped)
                return
            except Unreadable as error:
                self._skipped.note(error.reason, self.name, f"at {error.at}: {error.detail}")
                if not self._members:
                    return
                start = max(start, error.at, 0) + 1

    def _pieces(self, start: int, end: int) -> Iterator[Piece]:
        if not self._magic:
            return plain_pieces(self._blob, max(start, 0))
        unpack = _unpack(self._magic)
        if start <= 0:
            return unpack(self._blob, 0, members=bool(self._members))
        if not self._members:
            return (piece for piece in unpack(self._blob, 0, members=False) if piece.position >= start)
        candidates = starts(self._blob, self._magic, start, min(end, self._blob.size))
        for tried, candidate in enumerate(candidates):
            if tried == LIMITS.attempts:
                raise Unreadable("corrupt", "nothing that looks like a member is one", end)
            pieces = unpack(self._blob, candidate, members=True)
            try:
                first = next(pieces, None)
            except Unreadable:
                continue
            if first is not None:
                return _chain(first, pieces)
        return iter(())


class Passes:
    """Large compressed files that can be entered nowhere: one is open, and each visit to any of them reads on."""

    def __init__(self, blobs: Sequence[Blob], pace: Pace, skipped: Skipped, random: Random) -> None:
        self._blobs = blobs
        self._pace = pace
        self._skipped = skipped
        self._records = self._forever(random)
        self._due = 0
        self._read = 0

    def visit(self, random: Random) -> Iterator[Document | None]:
        self._due += self._pace.window
        yield from thin(self._until_due(), self._pace.gap, random)

    def _until_due(self) -> Iterator[tuple[int, _Read]]:
        while self._read < self._due:
            yield next(self._records)

    def _forever(self, random: Random) -> Iterator[tuple[int, _Read]]:
        before = 0
        while True:
            # by size: else early draws would be of small files too often
            order = sorted(self._blobs, key=lambda blob: random.expovariate(1.0) / blob.size)
            for blob in order:
                if has_members(blob, _magic(blob.name)):
                    continue
                try:
                    pieces = _unpack(_magic(blob.name))(blob, 0, members=False)
                    found = lines(self._watched(pieces, before), whole=True, end=blob.size + 1)
                    yield from _readable(blob, found, self._skipped)
                except Unreadable as error:
                    self._skipped.note(error.reason, blob.name, f"at {error.at}: {error.detail}")
                before += blob.size
                self._read = before
                yield 0, lambda: None  # so that a visit ends even where no file has any line

    def _watched(self, pieces: Iterator[Piece], before: int) -> Iterator[Piece]:
        for piece in pieces:
            self._read = before + piece.position
            yield piece


def _readable(
    blob: Blob, found: Iterator[tuple[int, bytes | None]], skipped: Skipped
) -> Iterator[tuple[int, _Read]]:
    for position, line in found:
        if line is None:
            skipped.note("too_long", blob.name, f"a line at {position}")
        else:
            yield len(line), partial(_read, blob, position, line, skipped)


def _read(blob: Blob, position: int, line: bytes, skipped: Skipped) -> tuple[str, str] | None:
    try:
        text, address = text_of(line)
    except Unreadable as error:
        skipped.note(error.reason, blob.name, f"at {position}: {error.detail}")
        return None
    return text, place(blob.name, position, address)


def _magic(name: str) -> bytes:
    lower = name.lower()
    return GZIP_MAGIC if lower.endswith(".gz") else ZSTD_MAGIC if lower.endswith((".zst", ".zstd")) else b""


def _unpack(magic: bytes) -> Callable[..., Iterator[Piece]]:
    return gzip_pieces if magic == GZIP_MAGIC else zstd_pieces


def _chain(first: Piece, rest: Iterator[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest
