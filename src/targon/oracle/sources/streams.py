"""Compressed files, unpacked piece by piece, and where they can be entered.

A file is a row of *cells*, each with a position in the compressed file. Gzip and zstd files may consist of *members*
(zstd calls them frames) that can be unpacked without what stands before them: those are the cells then, and a
member's start is found by looking for its first bytes and trying. A file that is one long stream has to be unpacked
from its front: its cells are the pieces of ``FEED`` bytes that are fed to the decoder. In a file that is not
compressed every byte is a cell.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from targon.oracle.errors import ToolMissing
from targon.oracle.sources.blobs import Blob, feeds
from targon.oracle.sources.limits import LIMITS, MIB
from targon.oracle.sources.skipped import Unreadable

FEED: Final = 1 << 16
PIECE: Final = 1 << 18

GZIP_MAGIC: Final = b"\x1f\x8b\x08"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some unpacked bytes."""

    position: int
    """Of the cell that they are of; if each byte is a cell, of the first."""
    data: bytes
    exact: bool = False
    """Whether each byte is a cell."""


class _Ratio:
    """Refuses what unpacks to far more than text ever does, wherever in a file it begins."""

    def __init__(self) -> None:
        self._out = 0
        self._since = 0

    def add(self, out: int, taken: int, at: int) -> None:
        """Note what came out, and how many compressed bytes were taken so far."""
        self._out += out
        if self._out > LIMITS.bomb_bytes:
            if self._out > LIMITS.bomb_ratio * (taken - self._since):
                raise Unreadable("bomb", f"{self._out} bytes from {taken - self._since}", at)
            self._out, self._since = 0, taken


def plain_pieces(blob: Blob, start: int) -> Iterator[Piece]:
    """A file as it is."""
    for position, data in feeds(blob, start, FEED):
        yield Piece(position, data, exact=True)


def gzip_pieces(blob: Blob, start: int, *, members: bool) -> Iterator[Piece]:
    """Unpack gzip from a member's start to the file's end.

    Raises:
        Unreadable: corrupt, truncated, or a bomb; with the position of the member.
    """
    decoder, ratio = zlib.decompressobj(wbits=31), _Ratio()
    member, fresh = start, True
    for position, chunk in feeds(blob, start, FEED):
        data = chunk
        while True:
            if fresh and not (data := data.lstrip(b"\0")):  # some writers fill up with zeros
                break
            if fresh:
                member = position + len(chunk) - len(data)
            fresh = False
            try:
                out = decoder.decompress(data, PIECE)
            except zlib.error as error:
                raise Unreadable("corrupt", str(error), member) from error
            ratio.add(len(out), position + len(chunk) - start, member)
            if out:
                yield Piece(member if members else position, out)
            if decoder.eof:
                data, fresh, decoder = decoder.unused_data, True, zlib.decompressobj(wbits=31)
            else:
                data = decoder.unconsumed_tail
                if not data and len(out) < PIECE:
                    break
    if not fresh:
        raise Unreadable("truncated", "gzip", member)


def zstd_pieces(blob: Blob, start: int, *, members: bool) -> Iterator[Piece]:
    """Unpack zstd from a frame's start to the file's end.

    Raises:
        Unreadable: corrupt, truncated, a bomb, or in need of too much memory; with the position of the frame.
        ToolMissing: without zstandard.
    """
    if not members:
        small = blob.size <= LIMITS.enter_bytes
        window = LIMITS.zstd_window_bytes >> small  # one large file is held open while others are looked into
        yield from _zstd_span(blob, start, blob.size, window, framed=False)
        return
    while start < blob.size:
        end = zstd_frame_end(blob, start)
        yield from _zstd_span(blob, start, end, LIMITS.zstd_window_bytes >> 1, framed=True)
        start = end


def _zstd_span(blob: Blob, start: int, end: int, window: int, *, framed: bool) -> Iterator[Piece]:
    zstandard = _zstandard()
    span, ratio = _Span(blob, start, end), _Ratio()
    decoder = zstandard.ZstdDecompressor(max_window_size=window)
    with decoder.stream_reader(span, read_size=FEED, read_across_frames=True, closefd=False) as reader:
        while True:
            try:
                out = reader.read(PIECE)
            except zstandard.ZstdError as error:
                raise Unreadable("corrupt", str(error), start) from error
            if not out:
                if not framed and blob.size <= LIMITS.enter_bytes:  # the library says nothing of a cut
                    _check_frames(blob, start)
                return
            ratio.add(len(out), span.taken, start)
            yield Piece(start if framed else span.fed, out)


def _check_frames(blob: Blob, start: int) -> None:
    while start < blob.size:
        start = zstd_frame_end(blob, start)


class _Span:
    """A part of a blob as something that can be read."""

    def __init__(self, blob: Blob, start: int, end: int) -> None:
        self._blob, self._start, self._next, self._end = blob, start, start, end
        self.fed = start
        """Position of what was last read."""

    @property
    def taken(self) -> int:
        return self._next - self._start

    def read(self, size: int = FEED) -> bytes:
        data = self._blob.read(self._next, min(size, self._end - self._next))
        if data:
            self.fed = self._next
            self._next += len(data)
        return data


def zstd_frame_end(blob: Blob, start: int, within: int | None = None) -> int:
    """Where a frame ends, from its blocks' headers; nothing is unpacked.

    Args:
        within: give up after so many bytes.

    Raises:
        Unreadable: if there is no whole frame.
    """
    zstandard = _zstandard()
    head = blob.read(start, 18)
    if len(head) >= 8 and int.from_bytes(head[:4], "little") in _SKIPPABLE:
        end = start + 8 + int.from_bytes(head[4:8], "little")
    else:
        try:
            frame = zstandard.get_frame_parameters(head)
            place = start + zstandard.frame_header_size(head)
        except zstandard.ZstdError as error:
            raise Unreadable("corrupt", str(error), start) from error
        # a block's header: its last bit says whether it is the last, two more its type, the rest its size
        around, held = place, blob.read(place, FEED)
        for _ in range(LIMITS.zstd_blocks):
            if place + 3 > around + len(held):
                around, held = place, blob.read(place, FEED)
            header = int.from_bytes(held[place - around : place - around + 3], "little")
            kind = header >> 1 & 3
            place += 3 + (1 if kind == 1 else header >> 3)
            if kind == 3 or place > blob.size:
                raise Unreadable("truncated" if place > blob.size else "corrupt", "zstd block", start)
            if header & 1:
                break
            if within is not None and place - start > within:
                raise Unreadable("too_long", "zstd frame", start)
        else:
            raise Unreadable("bomb", "a zstd frame of more blocks than any text has", start)
        end = place + (4 if frame.has_checksum else 0)
    if end > blob.size:
        raise Unreadable("truncated", "zstd frame", start)
    return end


def has_members(blob: Blob, magic: bytes) -> bool:
    """Whether a file's first member ends early enough that others can be looked for."""
    try:
        if magic == ZSTD_MAGIC:
            end = zstd_frame_end(blob, 0, LIMITS.probe_bytes)
            if int.from_bytes(blob.read(0, 4), "little") in _SKIPPABLE:
                end = zstd_frame_end(blob, end, LIMITS.probe_bytes)
            return end < blob.size
        return any(piece.position for piece in gzip_pieces(_Head(blob), 0, members=True))
    except Unreadable:
        return False


class _Head:
    """The beginning of a blob."""

    near = True

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self.name = blob.name
        self.size = min(blob.size, LIMITS.probe_bytes)

    def read(self, start: int, length: int) -> bytes:
        return self._blob.read(start, min(length, self.size - start))

    def close(self) -> None:
        """The blob is another's."""


def starts(blob: Blob, magic: bytes, start: int, end: int) -> Iterator[int]:
    """Where a member may start, within [start, end): wherever its first bytes stand."""
    while start < end:
        data = blob.read(start, min(MIB, end - start) + len(magic) - 1)
        place = data.find(magic)
        while place >= 0:
            yield start + place
            place = data.find(magic, place + 1)
        start += MIB


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise ToolMissing("zstandard", "to read .zst files") from error
    return zstandard
