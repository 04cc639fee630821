"""How much memory a Parquet file would ask for: looked at before a library reads it.

A reader of Parquet unpacks a page whole, into as much memory as the page's header asks for. So a few bytes could ask
for 2 GiB; whoever has looked at the headers first can leave such a column alone. The file's metadata is read whole,
too, into 60 times its size where its lists have many short entries. Both are in Thrift's compact protocol; of a page's
header the first three fields are its type, its unpacked and its packed size, in bytes.
"""

from __future__ import annotations

from typing import Final

from targon.oracle.sources.blobs import Blob
from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.skipped import Unreadable

_HEADER_BYTES: Final = 1 << 16
"""Read at a time; a header is some tens of bytes, with statistics of long values some thousands."""
_DEPTH: Final = 16
_STRUCT: Final = 12
_STRUCT_ENTRIES: Final = 8
"""As many entries of a list a struct in one counts for."""


def count_entries(metadata: bytes, most: int) -> int:
    """The entries of all lists in a file's metadata; a struct counts for eight.

    Raises:
        Unreadable: if there are more than ``most``, or it is no metadata.
    """
    compact = _Compact(metadata, 0, most)
    try:
        compact.whole()
    except IndexError:
        raise Unreadable("corrupt", "the file's metadata") from None
    return compact.entries


def largest_page(blob: Blob, start: int, length: int, values: int) -> int:
    """The largest unpacked size of the pages that a column chunk consists of.

    Args:
        start: of its first page.
        length: of all its pages, packed, with their headers.
        values: of the chunk; an empty page in a loop would else never end.

    Raises:
        Unreadable: if the headers are none.
    """
    largest, place, end, pages = 0, start, start + length, 0
    held, around = b"", start
    while place < end:
        if place + 1_024 > around + len(held):
            held, around = blob.read(place, min(_HEADER_BYTES, end - place)), place
        try:
            header = _Compact(held, place - around)
            unpacked, packed = header.sizes()
        except IndexError:
            if around == place:
                raise Unreadable("corrupt", "a page's header", place) from None
            held = b""  # it went on behind what was held
            continue
        if unpacked < 0 or packed < 0 or pages > min(values + 1, LIMITS.pages):
            raise Unreadable("corrupt", "a page's header", place)
        largest = max(largest, unpacked)
        place = around + header.place + packed
        pages += 1
    return largest


class _Compact:
    """Reads a struct in Thrift's compact protocol. Raises IndexError where it ends too early."""

    def __init__(self, data: bytes, place: int, most: int = 1 << 20) -> None:
        self._data = data
        self._most = most
        self.place = place
        self.entries = 0
        """Of the lists that were gone by."""

    def whole(self) -> None:
        """A struct, to its end."""
        self._skip(_STRUCT, 0)

    def sizes(self) -> tuple[int, int]:
        """The fields 2 and 3 of a page's header; then the place is behind it."""
        found = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._zigzag()
            if kind & 15 == 5:
                found[number] = self._zigzag()
            else:
                self._skip(kind & 15, 0)
        return found.get(2, -1), found.get(3, -1)

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise IndexError
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _DEPTH:
            raise IndexError
        match kind:
            case 1 | 2:  # a truth value is in the type
                pass
            case 3:
                self.place += 1
            case 4 | 5 | 6:
                self._varint()
            case 7:
                self.place += 8
            case 8:
                length = self._varint()
                self.place += length
            case 9 | 10:
                head = self._byte()
                for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                    self._count(head & 15)
                    self._element(head & 15, depth)
            case 11:
                if count := self._varint():
                    kinds = self._byte()
                    for _ in range(count):
                        self._count(kinds & 15)
                        self._element(kinds >> 4, depth)
                        self._element(kinds & 15, depth)
            case 12:  # a struct
                while inner := self._byte():
                    if not inner >> 4:
                        self._zigzag()
                    self._skip(inner & 15, depth + 1)
            case _:
                raise IndexError

    def _count(self, kind: int) -> None:
        self.entries += _STRUCT_ENTRIES if kind == _STRUCT else 1
        if self.entries > self._most:
            raise Unreadable("too_long", f"lists of more than {self._most:,} entries in its metadata")

    def _element(self, kind: int, depth: int) -> None:
        if kind in {1, 2}:  # in a list they are bytes of their own
            self.place += 1
        else:
            self._skip(kind, depth + 1)
        if self.place > len(self._data):
            raise IndexError
