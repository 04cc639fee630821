"""The lines of a segment's file, one after another, as the fold takes them.

A line of one of the two kinds that fill a log is taken apart by one regular expression, from its first byte to its
hash; all else about it is compared as text. What that expression doesn't know is cut out and parsed as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple

from targon.audit.hashing import HASH, MAX_RECORD_BYTES, START
from targon.audit.lean import answered_line, attempt_line, parse
from targon.protocol.primitives import Digest
from targon.protocol.segments import SegmentBody

PIECE_BYTES: Final = 1 << 20
"""So much of a file is read at once."""


class LeanRecord(NamedTuple):
    """A :class:`targon.ledger.Record`, as the fold reads it."""

    seq: int
    prev: Digest
    hash: Digest
    event: Any


class Broken(Exception):
    """A line is not in its place, or none at all. Whoever hashes lines names it."""


_TO_NAME: Final = len(START) + len('{"')
_tuple: Final = tuple.__new__


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """A file in pieces of whole lines; the last may lack its line break. None is much longer than a record may be."""
    rest = b""
    while read := file.read(PIECE_BYTES):
        cut = read.rfind(b"\n") + 1
        if cut:
            yield rest + read[:cut]
            rest = read[cut:]
        else:
            rest += read
            if len(rest) > MAX_RECORD_BYTES:
                break
    if rest:
        yield rest


def records(file: IO[bytes], body: SegmentBody) -> Iterator[LeanRecord]:
    """The records of a segment, in order, each held to its place and its predecessor. Nothing is hashed.

    Raises:
        Broken: at the first line that is none of the segment's.
        UnknownEvent, MalformedMessage: at the first event that can't be parsed.
    """
    seq, prev = body.first, Digest(body.prev)
    for piece in pieces(file):
        text = piece.decode("latin-1")  # a character is a byte; what is parsed here is ASCII
        at, length = 0, len(text)
        while at < length:
            if seq > body.last:
                raise Broken
            end = f'","prev":"{prev}","seq":{seq}}}\n'
            taken = attempt_line if text.startswith("block", at + _TO_NAME) else answered_line
            found: tuple[Any, int, Digest] | None = taken(text, at)
            if found is not None and text.startswith(end, found[1]):
                event, upto, hash_ = found
                at = upto + len(end)
            else:
                stop = text.find("\n", at) + 1 or length
                hash_, data = _taken_apart(piece[at:stop], end)
                event, at = parse(data), stop
            yield _tuple(LeanRecord, (seq, prev, hash_, event))
            prev = hash_
            seq += 1


def _taken_apart(line: bytes, end: str) -> tuple[Digest, bytes]:
    """The hash and the event of any line."""
    n = len(end)
    if (
        len(line) > MAX_RECORD_BYTES + 1
        or not line.startswith(START)
        or not line.endswith(end.encode())
        or line[-n - 73 : -n - 64] != HASH
    ):
        raise Broken
    try:
        return Digest(line[-n - 64 : -n].decode("ascii")), line[9 : -n - 73]
    except UnicodeDecodeError:
        raise Broken from None
