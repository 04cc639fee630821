"""Drawing from Parquet files: a row group by its bytes, then its rows by the text that they really have.

Of a row group only the column with the text is read, a few rows at a time; so memory is that of some pages, whatever a
row group's size. How much text it holds needn't be known beforehand: its rows are thinned (see ``sampling.py``). A
dictionary can make a column far smaller than its text; that is why rows are weighed by what they are, not the column by
its size.
"""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from targon.oracle.errors import ToolMissing
from targon.oracle.ports import Document
from targon.oracle.sources.blobs import Blob
from targon.oracle.sources.limits import LIMITS, MIB
from targon.oracle.sources.lines import TEXT_FIELDS, mended, place
from targon.oracle.sources.pages import count_entries, largest_page
from targon.oracle.sources.sampling import Pace, thin
from targon.oracle.sources.skipped import Skipped, Unreadable

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ENDINGS: Final = (".parquet",)
_MAGIC: Final = b"PAR1"
_MOST_ROWS: Final = 64
"""Read at a time, where they are short."""


class Table:
    """One Parquet file."""

    sheds = False

    def __init__(self, blob: Blob, pace: Pace, skipped: Skipped) -> None:
        self.name = blob.name
        # with a window, as other files: else a small file would be drawn from seldom, and then very often
        self.weight = float(blob.size + pace.window)
        self._blob = blob
        self._intensity = pace.intensity
        self._skipped = skipped
        self._bombs = set[int]()
        self._counted = b""
        """Digest of the metadata whose entries were counted last."""

    def visit(self, random: Random) -> Iterator[Document | None]:
        try:
            with self._opened() as file:
                column, field = _text_column(file)
                chunks = [
                    file.metadata.row_group(group).column(column) for group in range(file.num_row_groups)
                ]
                sums = list(accumulate(max(0, chunk.total_compressed_size) for chunk in chunks))
                if not sums or not sums[-1]:
                    raise Unreadable("no_text", "no row group has any")
                group = bisect_right(sums, random.randrange(sums[-1]))
                if group in self._bombs:
                    raise Unreadable("bomb", f"row group {group}")
                share = chunks[group].total_compressed_size / sums[-1]
                page = _largest_page(self._blob, chunks[group])
                batches = file.iter_batches(
                    max(1, min(_MOST_ROWS, LIMITS.page_bytes // max(page, 1))),
                    row_groups=[group],
                    columns=[field],
                    use_threads=False,
                )
                gap = share * self.weight / self._intensity
                size = chunks[group].total_compressed_size
                yield from thin(self._rows(_watched(batches), group, size), gap, random)
        except Unreadable as error:
            self._skipped.note(error.reason, self.name, error.detail)

    def _opened(self) -> pq.ParquetFile:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ToolMissing("pyarrow", "to read Parquet") from error
        metadata = _metadata(self._blob)
        digest = hashlib.sha256(metadata).digest()
        if digest != self._counted:
            count_entries(metadata, LIMITS.footer_entries)
            self._counted = digest
        alone = _MAGIC + metadata + len(metadata).to_bytes(4, "little") + _MAGIC
        try:
            with pq.ParquetFile(
                pa.BufferReader(alone),
                thrift_string_size_limit=LIMITS.footer_bytes,
                thrift_container_size_limit=LIMITS.footer_entries,
            ) as file:
                read = file.metadata
            return pq.ParquetFile(
                pa.PythonFile(_File(self._blob), mode="r"), metadata=read, pre_buffer=False, buffer_size=MIB
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Unreadable("corrupt", str(error)) from error

    def _rows(
        self, batches: Iterator[Any], group: int, size: int
    ) -> Iterator[tuple[int, Callable[[], tuple[str, str] | None]]]:
        import pyarrow.compute as pc

        row, out, most = 0, 0, max(LIMITS.bomb_bytes, LIMITS.bomb_ratio * size)
        for batch in batches:
            values = batch.column(0)
            if hasattr(values, "dictionary_decode"):
                values = values.dictionary_decode()
            for index, length in enumerate(pc.binary_length(values).to_pylist()):
                if length is not None and length > LIMITS.line_bytes:
                    self._skipped.note("too_long", self.name, f"row {row} of row group {group}")
                else:
                    yield length or 0, partial(self._read, values[index], f"{group}/{row}")
                row += 1
                out += (length or 0) + LIMITS.row_bytes
                if out > most:  # a dictionary can make any number of rows of one
                    self._bombs.add(group)
                    raise Unreadable("bomb", f"row group {group}: {row} rows of {size} bytes")

    def _read(self, cell: _Cell, row: str) -> tuple[str, str] | None:
        try:
            value = cell.as_py()
            text = value if isinstance(value, str) else bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            self._skipped.note("not_unicode", self.name, str(error))
            return None
        return mended(text), place(self.name, row)


class _Cell(Protocol):
    def as_py(self) -> str | bytes: ...


class _Chunk(Protocol):
    """A column of a row group, as its file's metadata has it."""

    dictionary_page_offset: int | None
    data_page_offset: int
    total_compressed_size: int
    num_values: int


def _metadata(blob: Blob) -> bytes:
    end = blob.read(max(0, blob.size - 8), 8)
    if len(end) < 8 or end[4:] != _MAGIC:
        raise Unreadable("corrupt", "no Parquet file, or cut off: it doesn't end with PAR1")
    size = int.from_bytes(end[:4], "little")
    if size > LIMITS.footer_bytes:
        raise Unreadable("too_long", f"its metadata has {size} bytes, expected at most {LIMITS.footer_bytes}")
    metadata = blob.read(max(0, blob.size - 8 - size), size)
    if len(metadata) != size or size > blob.size - 8:
        raise Unreadable("corrupt", f"its metadata has {size} bytes, more than the file")
    return metadata


def _text_column(file: pq.ParquetFile) -> tuple[int, str]:
    """The column that holds the text: its number and name."""
    columns = [file.schema.column(number) for number in range(len(file.schema.names))]
    for field in TEXT_FIELDS:
        for number, column in enumerate(columns):
            if (
                column.path == field
                and column.physical_type == "BYTE_ARRAY"
                and not column.max_repetition_level
            ):
                return number, field
    expected = ", ".join(TEXT_FIELDS)
    found = ", ".join(column.path for column in columns[:20])
    raise Unreadable("no_text", f"got the columns {found}, expected one of text, named one of: {expected}")


def _largest_page(blob: Blob, chunk: _Chunk) -> int:
    start = min(
        offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset is not None
    )
    largest = largest_page(blob, start, chunk.total_compressed_size, chunk.num_values)
    if largest > LIMITS.page_bytes:
        raise Unreadable("too_long", f"a page of {largest} bytes")
    return largest


def _watched(batches: Iterator[Any]) -> Iterator[Any]:
    """The same rows; what is wrong with them is said in our words."""
    import pyarrow as pa

    try:
        yield from batches
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Unreadable("corrupt", str(error)) from error


class _File(io.RawIOBase):
    """A blob, as Arrow reads it."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._blob.size)[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._blob.read(self._place, self._blob.size if size < 0 else size)
        except Unreadable as error:
            raise OSError(str(error)) from error
        self._place += len(data)
        return data
