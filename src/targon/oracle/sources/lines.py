"""Files of JSON lines, as RedPajama is published: which line a place is in, and what text a line has.

A line belongs to the cell (see ``streams.py``) of the line feed before it; the first line to its file's first cell. So
each line belongs to one cell, wherever members were cut, and who enters a file anywhere goes on to the next line feed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

from targon.oracle.sources.blobs import Blob
from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.skipped import Unreadable
from targon.oracle.sources.streams import Piece

TEXT_FIELDS: Final = ("text", "raw_content")
"""Under which a record has its text: RedPajama v1 and v2."""
_STEP: Final = 1 << 15
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANK: Final = re.compile(rb"\n\n+")
_MAX_PLACE_CHARS: Final = 1_000


def lines(pieces: Iterable[Piece], *, whole: bool, end: int) -> Iterator[tuple[int, bytes | None]]:
    """The lines that begin in the pieces, before a position.

    Args:
        whole: whether the pieces begin at the file's front; else what comes before the first line feed is left out.
        end: lines whose cell is at or after it are left out.

    Yields:
        the position of the line's cell, and the line; None for it if it is too long. Some are empty lines that
        aren't there, so that whoever wants to stop meanwhile can.
    """
    held: list[bytes] = []
    length = 0
    position = 0 if whole else None  # of the line that is being read
    for piece in pieces:
        begin = 0
        data = piece.data
        if not piece.exact and b"\n\n" in data:  # millions of them compress to nothing
            data = _BLANK.sub(b"\n", data)
        while (cut := data.find(b"\n", begin)) >= 0:
            if position is not None:
                part = data[begin:cut]
                yield position, b"".join([*held, part]) if length + len(part) <= LIMITS.line_bytes else None
            held, length = [], 0
            position = piece.position + cut if piece.exact else piece.position
            if position >= end:
                return
            begin = cut + 1
        rest = len(data) - begin
        length += rest
        if position is None or length > LIMITS.line_bytes:
            held = []
            if piece.position >= end:  # whatever line comes next is another's
                break
            yield piece.position, b""
        elif rest:
            held.append(data[begin:])
    if position is not None and length:
        yield position, b"".join(held) if length <= LIMITS.line_bytes else None


def line_at(blob: Blob, offset: int) -> tuple[int, bytes, int]:
    """The line that holds a byte, where it begins, and how many bytes are its: its line feed is one of them.

    Raises:
        Unreadable: if it can't be read, or is too long.
    """
    begin, before = offset, list[bytes]()
    while begin > 0:
        step = min(begin, max(_STEP, offset - begin))
        begin -= step
        data = blob.read(begin, step)
        cut = data.rfind(b"\n") + 1
        before.insert(0, data[cut:])
        if cut:
            break
        if offset - begin > LIMITS.line_bytes:
            raise Unreadable("too_long", at=offset)
    start = offset - sum(map(len, before))
    after = [blob.read(offset, _STEP)]
    length = offset - start
    while (cut := after[-1].find(b"\n")) < 0:
        length += len(after[-1])
        if length > LIMITS.line_bytes:
            raise Unreadable("too_long", at=start)
        more = blob.read(start + length, max(_STEP, length))
        if not more:
            line = b"".join([*before, *after])
            return start, line, len(line)
        after.append(more)
    after[-1] = after[-1][:cut]
    line = b"".join([*before, *after])
    if len(line) > LIMITS.line_bytes:
        raise Unreadable("too_long", at=start)
    return start, line, len(line) + 1


def text_of(line: bytes) -> tuple[str, str]:
    """A line's text, and the address that it says it was taken from ("" where it says none).

    The text has at most as many characters as the line has bytes.

    Raises:
        Unreadable: if it is no JSON object, or has no text.
    """
    if line.count(b"{") + line.count(b"[") > LIMITS.json_containers:
        raise Unreadable("too_deep", "a line of JSON")
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unreadable("not_unicode", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("not_json", str(error)) from error
    if not isinstance(record, dict):
        raise Unreadable("not_json", f"got {type(record).__name__}, expected an object")
    for field in TEXT_FIELDS:
        text = record.get(field)
        if isinstance(text, str) and text:
            return mended(text), _address(record)
    raise Unreadable("no_text", f"expected a string under one of: {', '.join(TEXT_FIELDS)}")


def mended(text: str) -> str:
    """A text without halves of surrogate pairs, which JSON can hold and Unicode can't."""
    return _SURROGATE.sub("�", text)


def _address(record: dict[str, object]) -> str:
    meta = record.get("meta")
    for holder in (record, meta if isinstance(meta, dict) else {}):
        url = holder.get("url")
        if isinstance(url, str):
            return url
    return ""


def place(file: str, position: int | str, address: str = "") -> str:
    """Where a text was taken from: file and place, and its address if that is one."""
    name = f"{file}:{position}"
    if address and address.isprintable() and len(name) + len(address) + 1 <= _MAX_PLACE_CHARS:
        name = f"{name} {mended(address)}"
    return name[-_MAX_PLACE_CHARS:]
