"""Passages taken from a supply, held, and written down as a period: the work that a period takes. It blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from targon.oracle.passage import Passage
from targon.oracle.periods import PeriodFolder
from targon.oracle.ports import Supply, Written

SLICE: Final = 64
"""Passages that are taken at a time: some hundredths of a second of work."""
LONG_S: Final = 5.0
"""A slice that takes longer than this is made shorter next time, so that its end is heard of."""


class PeriodWork:
    """Takes, holds and writes. One thread at a time."""

    def __init__(self, supply: Supply, folder: PeriodFolder) -> None:
        self._supply = supply
        self._folder = folder
        self._held: list[Passage] = []
        """Taken, and not committed to yet: what a shorter period than was planned left over, too."""
        self._slice = SLICE

    @property
    def held(self) -> int:
        """How many passages are held."""
        return len(self._held)

    def fill(self, count: int) -> Iterator[int]:
        """Take passages until so many are held; tells how many were taken, a slice after the other.

        Raises:
            OracleError: if none can be had.
        """
        while self.held < count:
            wanted, began_s = min(self._slice, count - self.held), time.monotonic()
            taken = self._supply.take(wanted)
            self._held += taken
            yield len(taken)
            if len(taken) < wanted:
                return
            self._slice = max(1, self._slice // 2) if time.monotonic() - began_s > LONG_S else SLICE

    def write(self, number: int, secret: bytes, count: int) -> Written:
        """Write the first of those that are held down as a period's files; they are on disk when this returns.

        Raises:
            ValueError: if fewer are held.
            StoreUnavailable: if they can't be written.
        """
        if not 0 < count <= self.held:
            raise ValueError(f"got {count} passages to write, expected 1 to {self.held}, which are held")
        root = self._folder.write(number, secret, self._held[:count])
        return Written(root, self._supply.manifest())

    def used(self, count: int) -> None:
        """Let go of the first of those that are held: they were committed to."""
        del self._held[:count]
