"""The records of a verifier's log as lines of text: how each is hashed, chained, handed out and checked.

A line is the RFC 8785 form of ``{"event": …, "hash": …, "prev": …, "seq": …}``; what is hashed is the same without
``hash``. Both hold the event in its canonical form, so that neither has to be taken apart to be checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from targon.protocol.canonical import canonical_bytes
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import MAX_SAFE_INTEGER, Message
from targon.protocol.primitives import Digest

GENESIS_HASH: Final = Digest("0" * 64)
"""What the first record names as its predecessor."""

_START: Final = b'{"event":'
_END: Final = re.compile(rb',"hash":"([0-9a-f]{64})","prev":"([0-9a-f]{64})","seq":(0|[1-9][0-9]{0,15})\}\Z')
_END_MAX_BYTES: Final = 200


def record_hash(seq: int, prev: Digest, event: bytes) -> Digest:
    """A record's hash: SHA-256 over the RFC 8785 form of ``{"event": …, "prev": …, "seq": …}``.

    Args:
        event: the event in its canonical form, which is what lets the whole be put together as text.
    """
    return Digest(
        hashlib.sha256(b'{"event":%b,"prev":"%b","seq":%d}' % (event, prev.encode(), seq)).hexdigest()
    )


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record as it is handed out."""

    seq: int
    prev: Digest
    hash: Digest
    event: bytes
    """In its canonical form."""

    def to_bytes(self) -> bytes:
        """The line, without a line break."""
        return b'{"event":%b,"hash":"%b","prev":"%b","seq":%d}' % (
            self.event,
            self.hash.encode(),
            self.prev.encode(),
            self.seq,
        )

    @classmethod
    def from_bytes(cls, line: bytes) -> LogLine:
        """Take a line apart, and check that its record is what its hash says.

        Raises:
            MalformedMessage: if it is no record, in no canonical form, or not what its hash says.
        """
        end = _END.search(line, max(0, len(line) - _END_MAX_BYTES))
        if end is None or not line.startswith(_START):
            shown = line[:40].decode("utf-8", "replace")
            raise MalformedMessage(
                f'log line: got {shown!r}…, expected {{"event":…,"hash":…,"prev":…,"seq":…}}'
            )
        event = line[len(_START) : end.start()]
        hash_, prev, seq = Digest(end[1].decode()), Digest(end[2].decode()), int(end[3])
        expected = record_hash(seq, prev, event)
        if hash_ != expected:
            raise MalformedMessage(
                f"record {seq}: got the hash {hash_[:12]}…, expected {expected[:12]}…, that of its content"
            )
        if not _is_canonical_object(event):
            raise MalformedMessage(f"record {seq}: its event is no JSON object in canonical form (RFC 8785)")
        return cls(seq, prev, hash_, event)


class LogPageEnd(Message):
    """The last line of a piece of log: where to go on."""

    next: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """The record that follows the last one of this piece."""
    released: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """How many records may be had now."""


def _is_canonical_object(event: bytes) -> bool:
    """Whether all readers read the same: no key twice, no other spelling of a number."""
    try:
        value = json.loads(event)
        return isinstance(value, dict) and canonical_bytes(value) == event
    except (ValueError, RecursionError, MalformedMessage):
        return False
