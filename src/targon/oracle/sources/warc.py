"""Records of WARC and WET files, as Common Crawl publishes them: where each begins, and what text it has.

In a compressed file each record is a gzip member of its own, which is how such a file is entered anywhere. In a plain
one a record begins after an empty line, with the name of the format.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from targon.oracle.errors import ToolMissing
from targon.oracle.sources.blobs import Blob, feeds
from targon.oracle.sources.html import readable, unicode_of
from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.lines import place
from targon.oracle.sources.skipped import Skipped, Unreadable
from targon.oracle.sources.streams import GZIP_MAGIC, starts
from targon.oracle.sources.tamed import tamed

if TYPE_CHECKING:
    from fastwarc import WarcRecord

ENDINGS: Final = (".warc", ".wet", ".warc.gz", ".wet.gz")
_BEGIN: Final = b"WARC/1."
_BETWEEN: Final = b"\r\n\r\n"
_HEADER_BYTES: Final = 1 << 15
_FEED: Final = 1 << 14
_LOOK: Final = 1 << 12
"""Unpacked to see whether a record begins."""
_MOST_SOURCE_CHARS: Final = 1_000
_LENGTH: Final = re.compile(rb"^Content-Length:[ \t]*(\d{1,15})[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)
_FIELD: Final = re.compile(
    rb"^(WARC-Type|WARC-Target-URI|WARC-Date|Content-Type):([^\r\n]*)", re.MULTILINE | re.IGNORECASE
)
_PARSED: Final = (b"WARC-Type", b"Content-Type")
_HTML: Final = frozenset({"text/html", "application/xhtml+xml"})


def packed_records(blob: Blob, start: int, end: int, skipped: Skipped) -> Iterator[tuple[int, bytes]]:
    """The records of a ``.gz`` file whose members begin within [start, end), each with its member's position."""
    if start <= 0 and blob.read(0, len(GZIP_MAGIC)) != GZIP_MAGIC:
        skipped.note("corrupt", blob.name, "it doesn't begin as gzip does")
    read_to = failed = 0
    for position in starts(blob, GZIP_MAGIC, max(start, 0), min(end, blob.size)):
        if position < read_to:  # within a member that was read
            continue
        try:
            data, read_to = _member(blob, position)
            for record in _split(data):
                yield position, record
        except Unreadable as error:
            skipped.note(error.reason, blob.name, f"at {position}: {error.detail}")
            failed += 1
            if failed == LIMITS.attempts:  # each may have cost as much as the largest record
                return


def plain_records(blob: Blob, start: int, end: int, skipped: Skipped) -> Iterator[tuple[int, bytes]]:
    """The records of a plain file that begin within [start, end), each with its position."""
    at_front = start <= 0 and blob.read(0, len(_BEGIN)) == _BEGIN
    if start <= 0 and not at_front:
        skipped.note("corrupt", blob.name, f"it doesn't begin with {_BEGIN.decode()}")
    read_to = 0
    end = min(end, blob.size)
    between = starts(blob, _BETWEEN + _BEGIN, max(start - len(_BETWEEN), 0), end)
    for position in chain([0] if at_front else [], (found + len(_BETWEEN) for found in between)):
        if not max(read_to, start) <= position < end:
            continue
        try:
            head = blob.read(position, _HEADER_BYTES)
            body, length = _head(head, 0)
            read_to = position + body + length
            if body + length > LIMITS.record_bytes:
                raise Unreadable("too_long", f"a record of {length} bytes")
            if read_to > blob.size:
                raise Unreadable("truncated", "the file ends within the record")
            whole = head[: body + length]
            yield position, whole + blob.read(position + len(whole), body + length - len(whole))
        except Unreadable as error:
            skipped.note(error.reason, blob.name, f"at {position}: {error.detail}")


def _member(blob: Blob, start: int) -> tuple[bytes, int]:
    """A member of a gzip file, unpacked, and where it ends. Empty if none seems to begin there after all."""
    decoder = zlib.decompressobj(wbits=31)
    parts = list[bytes]()
    length = 0
    for position, chunk in feeds(blob, start, _FEED):
        data = chunk
        while data:
            try:
                most = LIMITS.record_bytes + 1 - length if parts else _LOOK
                part = decoder.decompress(data, most)
            except zlib.error as error:
                if not b"".join(parts[:1]).startswith(_BEGIN):
                    return b"", start  # bytes of a member that happen to look like the start of one
                raise Unreadable("corrupt", str(error)) from error
            if not parts and not part.startswith(_BEGIN[: len(part)]):
                return b"", start
            parts.append(part)
            length += len(part)
            if length > LIMITS.record_bytes:
                raise Unreadable("too_long", f"a member of more than {LIMITS.record_bytes} bytes")
            if decoder.eof:
                return b"".join(parts), position + len(chunk) - len(decoder.unused_data)
            data = decoder.unconsumed_tail
    if not b"".join(parts[:1]).startswith(_BEGIN):
        return b"", start
    raise Unreadable("truncated", "the file ends within a member")


def _split(data: bytes) -> Iterator[bytes]:
    """The records of a member: one, as it should be, or more."""
    place = 0
    while data.startswith(_BEGIN, place):
        body, length = _head(data, place)
        if body + length > len(data):
            raise Unreadable("truncated", "the member ends within its record")
        yield data[place : body + length]
        place = body + length + len(_BETWEEN)


def _head(data: bytes, begin: int) -> tuple[int, int]:
    """Where a record's content begins, and its length."""
    cut = data.find(_BETWEEN, begin, begin + _HEADER_BYTES)
    found = _LENGTH.search(data, begin, cut + 2) if cut >= 0 else None
    if found is None:
        raise Unreadable("corrupt", "a record's header has no end or no length")
    return cut + len(_BETWEEN), int(found[1])


def text_of(record: bytes, file: str, position: int) -> tuple[str, str] | None:
    """A record's text, and where it was taken from: its address and date. None if it isn't one that has text.

    Raises:
        Unreadable: if it should have text, and that can't be had.
        ToolMissing: without fastwarc or resiliparse.
    """
    try:
        from fastwarc import WarcRecord, WarcRecordType
    except ImportError as error:
        raise ToolMissing("fastwarc", "to read WARC files") from error
    try:
        head, content = _fields(record)
        parsed = WarcRecord.from_bytes(_rewritten(head, content))
        if parsed.record_type == WarcRecordType.conversion:
            text = _converted(parsed)
        elif parsed.record_type == WarcRecordType.response and parsed.is_http:
            page = _page(parsed)
            if page is None:
                return None
            text = page
        else:
            return None
    except OSError as error:
        raise Unreadable("corrupt", str(error)) from error
    if not text.strip():
        raise Unreadable("no_text", "the record is empty")
    return text, _provenance(head) or place(file, position)


def _fields(record: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """What we know of a record's header, the first of each by its name in small letters, and its content."""
    body, length = _head(record, 0)
    head = dict[bytes, bytes]()
    for found in _FIELD.finditer(record, 0, body):
        head.setdefault(found[1].lower(), found[2].strip())
    return head, record[body : body + length]


def _rewritten(head: dict[bytes, bytes], content: bytes) -> bytes:
    """The record with a header of ours: one that says two lengths, say, would end the process that parses it."""
    fields = b"".join(b"%s: %s\r\n" % (name, head[name.lower()]) for name in _PARSED if name.lower() in head)
    return b"WARC/1.0\r\n%sContent-Length: %d\r\n\r\n%s\r\n\r\n" % (fields, len(content), content)


def _converted(record: WarcRecord) -> str:
    try:
        return record.reader.read(LIMITS.record_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("not_unicode", str(error)) from error


def _page(record: WarcRecord) -> str | None:
    record.parse_http(auto_decode="all")
    if record.http_headers.status_code != 200:
        return None
    kind = (record.http_content_type or "").lower()
    if kind not in _HTML and kind != "text/plain":
        return None
    # what comes after is left out
    content = record.reader.read(LIMITS.html_bytes)
    text = unicode_of(content, record.http_charset)
    return readable(tamed(text)) if kind in _HTML else text


def _provenance(head: dict[bytes, bytes]) -> str:
    address = head.get(b"warc-target-uri", b"").decode("utf-8", "replace")
    date = head.get(b"warc-date", b"").decode("utf-8", "replace")
    source = f"{address.strip('<>')} {date}".strip()
    return source if address and source.isprintable() and len(source) <= _MOST_SOURCE_CHARS else ""
