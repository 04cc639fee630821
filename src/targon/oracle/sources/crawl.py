"""Drawing from WARC and WET files, as Common Crawl publishes them.

Each file is drawn from window by window, as ``json_lines.py`` says. Of a WET file (``conversion`` records) the text is
taken as it stands; of a WARC file's answers (``response`` records) the readable text of pages, as resiliparse finds it,
and plain text. Records are weighed by their bytes, and each draw counts as often as the record has characters per byte,
since a page's text is a small part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Final

from targon.oracle.ports import Document
from targon.oracle.sources import warc
from targon.oracle.sources.blobs import Blob
from targon.oracle.sources.sampling import Pace, thin
from targon.oracle.sources.skipped import Skipped, Unreadable

ENDINGS: Final = warc.ENDINGS
TEXT_PACE: Final = Pace(window=1 << 20, intensity=32)
PAGES_PACE: Final = Pace(window=1 << 19, intensity=64)
"""Where there are WARC files: most draws come to nothing, and many of one page cost hardly more than one."""


def pace_of(blobs: Sequence[Blob]) -> Pace:
    """How closely to read."""
    texts = all(blob.name.lower().removesuffix(".gz").endswith(".wet") for blob in blobs)
    return TEXT_PACE if texts else PAGES_PACE


class Archive:
    """One WARC or WET file."""

    sheds = False

    def __init__(self, blob: Blob, pace: Pace, skipped: Skipped) -> None:
        self.name = blob.name
        self.weight = float(blob.size + pace.window)
        self._blob = blob
        self._pace = pace
        self._skipped = skipped
        self._walk = warc.packed_records if blob.name.lower().endswith(".gz") else warc.plain_records

    def visit(self, random: Random) -> Iterator[Document | None]:
        start = random.randrange(-self._pace.window, self._blob.size)
        try:
            yield from thin(self._records(start, start + self._pace.window), self._pace.gap, random)
        except Unreadable as error:
            self._skipped.note(error.reason, self.name, f"at {error.at}: {error.detail}")

    def _records(self, start: int, end: int) -> Iterator[tuple[int, Callable[[], tuple[str, str] | None]]]:
        for position, record in self._walk(self._blob, start, end, self._skipped):
            yield len(record), partial(self._read, record, position)

    def _read(self, record: bytes, position: int) -> tuple[str, str] | None:
        try:
            return warc.text_of(record, self.name, position)
        except Unreadable as error:
            self._skipped.note(error.reason, self.name, f"at {position}: {error.detail}")
            return None
