"""How much of anything is read, held or waited for, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the work and the memory that one draw can cost, however its file was made."""

    line_bytes: int = 8 * MIB
    """Of a line of JSON, or a value of a table."""
    json_containers: int = 250_000
    """Braces and brackets in a line, wherever they stand: each can take 24 times its memory, and some of the time."""
    record_bytes: int = 8 * MIB
    """Of a WARC record, unpacked."""
    html_bytes: int = 1 * MIB
    """Of a page that is parsed; what comes after is left out, as crawls do."""
    html_elements: int = 50_000
    """Of a page that is parsed."""
    html_depth: int = 256
    """Elements within one another."""
    html_work: int = 4_000_000
    """Sum of the elements' depths: the time that finding a page's main text takes is in proportion to it."""
    page_bytes: int = 32 * MIB
    """Of a page of a Parquet file, unpacked: the least that can be read of a column. Usual is 1 MiB."""
    pages: int = 100_000
    """Of a column in a row group."""
    footer_bytes: int = 16 * MIB
    """Of a Parquet file's metadata: of 10 GiB of text in row groups of 4 MiB it is 5."""
    footer_entries: int = 1_000_000
    """Of all lists in it together. A struct counts for eight: read, one takes up to a kilobyte of memory."""
    row_bytes: int = 64
    """That a row of a table counts for beside its text, so that there is an end to rows without any."""
    enter_bytes: int = 32 * MIB
    """Compressed files without inner starts are unpacked from the front to reach a place: that far, no farther."""
    probe_bytes: int = 4 * MIB
    """Within which a compressed file's first member has to end, if members are to be looked for."""
    bomb_bytes: int = 16 * MIB
    """Unpacked in one go before a ratio is looked at."""
    bomb_ratio: int = 200
    """Bytes unpacked per compressed byte; of text it is 3 to 20, of deflate at most 1,032."""
    zstd_window_bytes: int = 128 * MIB
    """That unpacking a large zstd file may take: its own tool's limit. Of frames and small files, half of it."""
    zstd_blocks: int = 200_000
    """Of one frame: 128 KiB of text each, but for empty ones."""
    attempts: int = 16
    """In a visit to a file, to read on where what seemed to begin was nothing."""
    files: int = 100_000
    """Of one source."""


@dataclass(frozen=True, slots=True)
class WebLimits:
    """What bounds the work of reading from a web server."""

    connect_s: float = 10.0
    idle_s: float = 20.0
    """Without a byte."""
    request_s: float = 60.0
    """One request, to its last byte."""
    download_s: float = 900.0
    """A whole file, from a server that gives no ranges."""
    download_bytes: int = 4 << 30
    """All files together that had to be taken whole; they lie in a temporary folder."""
    redirects: int = 5
    urls: int = 2_000
    """Of a list; of a longer one those whose SHA-256 is lowest, on every machine the same."""
    list_bytes: int = 16 * MIB
    list_lines: int = 200_000
    """What comes after is left out; twice as many as a crawl has."""
    at_once: int = 16
    """Requests for sizes, when a list is opened."""
    attempts: int = 3


LIMITS: Final = Limits()
WEB_LIMITS: Final = WebLimits()
