"""Between whoever reads a prover's stream and whoever reads it for a user: each at its own speed.

Streams of objects cost a task switch and some 10 µs for each object. Here a token costs an append, and the user's side
is woken once for all that came since it looked last.
"""

from __future__ import annotations

import asyncio
from collections import deque

from targon.gateway.ports import Delta

DELTA_BYTES = 256
"""About what a delta takes in memory beside its text: itself, and its tuples with one token."""
TOKEN_BYTES = 64
"""About what a token id and its log-probability take."""


class Bell:
    """Wakes the one who waits. Who waits looks first: a bell that rings when nobody waits is not remembered."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, until_s: float | None = None) -> None:
        """Return when it rings, or when the event loop's clock shows a time."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if until_s is None else loop.call_at(until_s, self.ring)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


class Buffer:
    """What came of an answer and was not read yet, up to a size.

    Args:
        most_bytes: of memory, about. One delta more than that may be held.
        bell: is rung when something comes.
    """

    __slots__ = ("_bell", "_deltas", "_held", "_most", "_room")

    def __init__(self, most_bytes: int, bell: Bell) -> None:
        self._most = most_bytes
        self._bell = bell
        self._deltas: deque[tuple[Delta, int]] = deque()
        self._held = 0
        self._room = Bell()

    @property
    def full(self) -> bool:
        return self._held >= self._most

    def put(self, delta: Delta) -> None:
        """Add a delta, whether there is room or not."""
        size = DELTA_BYTES + 4 * len(delta.text) + TOKEN_BYTES * len(delta.token_ids)
        self._held += size
        self._deltas.append((delta, size))
        self._bell.ring()

    def get(self) -> Delta | None:
        """The oldest delta; None: there is none."""
        if not self._deltas:
            return None
        delta, size = self._deltas.popleft()
        before = self._held
        self._held -= size
        if self._held <= self._most // 2 < before:
            self._room.ring()
        return delta

    async def room(self, within_s: float) -> bool:
        """Wait until half of what fits was read; whether it was in time."""
        until_s = asyncio.get_running_loop().time() + within_s
        while self._held > self._most // 2:
            if asyncio.get_running_loop().time() >= until_s:
                return False
            await self._room.wait(until_s)
        return True
