"""The secrets that a log reveals, and what is drawn by them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from targon.ledger import IntervalClosed, UnknownEvent, parse_event

_IPAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OPAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_integer: Final = int.from_bytes  # big-endian
_CLOSED: Final = b'"kind":"interval_closed","'


class Hmac:
    """HMAC-SHA256 under one key, for many short messages: the key is hashed once (RFC 2104)."""

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._copy_inner = hashlib.sha256(block.translate(_IPAD)).copy
        self._copy_outer = hashlib.sha256(block.translate(_OPAD)).copy

    def draw(self, message: bytes) -> int:
        """The first 64 bits, as every draw takes them."""
        inner = self._copy_inner()
        inner.update(message)
        outer = self._copy_outer()
        outer.update(inner.digest())
        return _integer(outer.digest()[:8])


class Secrets:
    """The secrets that the log reveals, found ahead of where they are needed.

    Args:
        contents: the segments' contents from the first on, in pieces of whole lines, each read when it is asked for.
    """

    def __init__(self, contents: Iterator[bytes]) -> None:
        self._contents = contents
        self._known: dict[int, bytes] = {}

    def of(self, interval: int) -> bytes | None:
        """An interval's secret; None: the log doesn't reveal it (yet)."""
        while interval not in self._known:
            content = next(self._contents, None)
            if content is None:
                return None
            for closed in _closings(content):
                self._known.setdefault(closed.interval, bytes.fromhex(closed.secret))
        return self._known[interval]


def _closings(content: bytes) -> Iterator[IntervalClosed]:
    at = content.find(_CLOSED)
    while at >= 0:
        start, end = content.rfind(b"\n", 0, at) + 1, content.find(b',"hash":"', at)
        try:
            event = parse_event(content[start + 9 : end])
        except UnknownEvent:
            event = None
        if isinstance(event, IntervalClosed):
            yield event
        at = content.find(_CLOSED, at + 1)
