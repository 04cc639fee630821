"""Those who are sent long answers without a signature, and what keeps a few of them from having all there is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from targon.transport import ClientGone, Code, Refusal

EACH: Final = 2
"""Long answers that one address is sent at once."""
GRACE_S: Final = 20.0
"""How long a reader may take whatever time it likes."""
LEAST_BYTES_PER_S: Final = 16_384
"""After the grace, who reads more slowly than this is cut off: it holds a place that others wait for."""


class Readers:
    """Who is sent a long answer now.

    Args:
        what: that they read, in words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._reading: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str, *, most: int) -> Iterator[None]:
        """One more, from an address, until the block ends; at most so many at once.

        Raises:
            Refusal: ``overloaded`` where there are as many, ``too_many_concurrent`` where the address has its share.
        """
        if self._reading.total() >= most:
            raise Refusal(
                Code.OVERLOADED,
                f"{self._what} are being read by too many at once; try again",
                expected=f"at most {most} at once",
                retry_after_s=5.0,
            )
        if self._reading[address] >= EACH:
            raise Refusal(
                Code.TOO_MANY_CONCURRENT,
                f"this address reads {EACH} {self._what} already; wait for one to end",
                expected=f"at most {EACH} at once",
                retry_after_s=5.0,
            )
        self._reading[address] += 1
        try:
            yield
        finally:
            self._reading[address] -= 1
            if not self._reading[address]:
                del self._reading[address]


async def swiftly(
    pieces: AsyncIterator[bytes], *, grace_s: float = GRACE_S, least: int = LEAST_BYTES_PER_S
) -> AsyncGenerator[bytes, None]:
    """Pieces, as long as they are taken swiftly enough.

    Raises:
        ClientGone: once they aren't.
    """
    began_s, sent = time.monotonic(), 0
    async for piece in pieces:
        yield piece
        sent += len(piece)
        if sent < (time.monotonic() - began_s - grace_s) * least:
            raise ClientGone
