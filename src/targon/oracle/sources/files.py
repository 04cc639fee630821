"""Bodies of text that lie in files, here or on web servers, as sources."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Final

from targon.oracle.errors import NothingReadable
from targon.oracle.ports import Document
from targon.oracle.sources import crawl, json_lines, parquet
from targon.oracle.sources.blobs import Blob
from targon.oracle.sources.json_lines import json_parts
from targon.oracle.sources.sampling import Pace, Part, Patience, Weighted
from targon.oracle.sources.skipped import Skipped
from targon.protocol.primitives import Digest

_RECORDS_PACE: Final = Pace(window=1 << 21, intensity=32)
_MANIFEST_DOMAIN: Final = b"targon/source/1\0"


class FileText:
    """Text in files, drawn for ever: it is never exhausted, and draws may repeat a document.

    Files are looked at when they are drawn; so the first document comes at once, whatever the size of them all.

    Raises:
        NothingReadable: by ``documents``, if no file that is left gives any text.
    """

    def __init__(
        self,
        name: str,
        blobs: Sequence[Blob],
        skipped: Skipped,
        parts: Callable[[Random], Sequence[Part]],
        expected: str,
    ) -> None:
        self._name = name
        self._blobs = blobs
        self._skipped = skipped
        self._parts = parts
        self._expected = expected

    @property
    def name(self) -> str:
        return self._name

    @property
    def counts(self) -> Mapping[str, int]:
        """What was skipped so far, by reason; all reasons are there from the start."""
        return self._skipped.counts

    def manifest(self) -> Digest:
        """SHA-256 over the names and sizes of the files, by name: the same wherever the folder lies."""
        whole = hashlib.sha256(_MANIFEST_DOMAIN + self._name.partition(":")[0].encode() + b"\0")
        for blob in sorted(self._blobs, key=lambda blob: blob.name):
            whole.update(f"{blob.size} {blob.name}\0".encode("utf-8", "backslashreplace"))
        return Digest(whole.hexdigest())

    def documents(self, random: Random) -> Iterator[Document]:
        parts = Weighted(self._parts(random), lambda part: part.weight)
        patience = Patience[Part]()
        while parts.sum:
            part = parts.draw(random)
            weight, before, gave = part.weight, self._skipped.total, False
            for document in part.visit(random):
                gave = True
                if document is not None:
                    yield document
            if part.sheds:
                if part.weight != weight:
                    parts.reweigh()
            elif patience.spent(part, gave=gave, skipped=self._skipped.total > before):
                self._skipped.note("dropped", part.name)
                parts.drop(part)
        raise NothingReadable(
            self._name,
            f"{len(self._blobs)} files of {sum(blob.size for blob in self._blobs):,} bytes",
            self._expected,
            self._skipped.counts,
        )

    def close(self) -> None:
        """Close connections to web servers. A later draw opens them again."""
        for blob in self._blobs:
            blob.close()


REDPAJAMA_ENDINGS: Final = (*json_lines.ENDINGS, *parquet.ENDINGS)
REDPAJAMA_EXPECTED: Final = (
    "JSON lines (.jsonl, also .gz and .zst) or Parquet, with the text under one of: text, raw_content"
)
CRAWL_ENDINGS: Final = crawl.ENDINGS
CRAWL_EXPECTED: Final = "WARC or WET files (.warc.gz or .wet.gz, a gzip member for each record; or unpacked)"


def redpajama(name: str, blobs: Sequence[Blob], skipped: Skipped) -> FileText:
    """RedPajama: files of JSON lines and of Parquet."""
    tables = [blob for blob in blobs if blob.name.lower().endswith(parquet.ENDINGS)]
    others = [blob for blob in blobs if not blob.name.lower().endswith(parquet.ENDINGS)]
    pace = _RECORDS_PACE.within(sum(blob.size for blob in blobs))

    def parts(random: Random) -> list[Part]:
        lines = json_parts(others, pace, skipped, random)
        return [*lines, *(parquet.Table(blob, pace, skipped) for blob in tables)]

    return FileText(name, blobs, skipped, parts, REDPAJAMA_EXPECTED)


def crawled(name: str, blobs: Sequence[Blob], skipped: Skipped) -> FileText:
    """A crawl: WARC and WET files."""
    pace = crawl.pace_of(blobs).within(sum(blob.size for blob in blobs))
    return FileText(
        name, blobs, skipped, lambda _: [crawl.Archive(blob, pace, skipped) for blob in blobs], CRAWL_EXPECTED
    )
