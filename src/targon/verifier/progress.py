"""Whether a verifier still gets anywhere: what its health is judged by."""

from __future__ import annotations

from collections.abc import Callable

from targon.ledger import Standings

STALLED_S = 600.0
"""Fifty blocks. The slowest steps, with a slow engine and many provers, take a few of them."""


class Progress:
    """Watches the log's newest block.

    Args:
        standings: those of now.
        monotonic_s: a clock that never goes back.
    """

    def __init__(self, standings: Callable[[], Standings], monotonic_s: Callable[[], float]) -> None:
        self._standings = standings
        self._monotonic_s = monotonic_s
        self._block = standings().block
        self._since_s = monotonic_s()

    def ailing(self) -> str | None:
        """What is wrong now, in words; None if nothing is."""
        block, now_s = self._standings().block, self._monotonic_s()
        if block != self._block:
            self._block, self._since_s = block, now_s
        waited_s = now_s - self._since_s
        if waited_s <= STALLED_S:
            return None
        return f"no block was handled for {waited_s:.0f} s; the last was {block}"
