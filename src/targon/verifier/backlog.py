"""Audits that wait for their turn, and the rule by which a verifier takes no more inferences than it can audit.

What is drawn must be audited. So where audits wait for too long, or too many of them do, nothing is taken until the
verifier has caught up:

- *behind*: the oldest has waited for more than ``LATE_BLOCKS``, or ``MOST`` wait;
- *caught up*: neither is more than half of that.

Of those that wait, one is picked by chance, so that nobody can foresee which is next; but one that has waited for half
of ``LATE_BLOCKS`` comes first. No I/O here.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Final

LATE_BLOCKS: Final = 180
"""About 36 minutes, half an interval. An audit of the log asks of a verifier that no answer waits while others that
came 300 blocks later are judged."""
MOST: Final = 10_000
"""Audits that wait: each takes about a kilobyte in memory, and some on the disk."""


class Backlog:
    """Which audits wait, and since when."""

    def __init__(self) -> None:
        self._since: OrderedDict[int, int] = OrderedDict()
        """By attempt, oldest first: the block that it was asked in."""
        self._mixed: list[int] = []
        self._place: dict[int, int] = {}
        """Of each attempt in ``_mixed``."""
        self._random = random.SystemRandom()
        self._behind = False

    def __len__(self) -> int:
        return len(self._mixed)

    def add(self, attempt: int, block: int) -> None:
        """An answer, asked for in a block, waits from now on."""
        self._since[attempt] = block
        self._place[attempt] = len(self._mixed)
        self._mixed.append(attempt)

    def take(self, now: int) -> int:
        """The next to be judged; it waits no more.

        Args:
            now: the newest block.

        Raises:
            ValueError: if nothing waits.
        """
        if self.age(now) > LATE_BLOCKS // 2:
            attempt = next(iter(self._since))
        else:
            attempt = self._mixed[self._random.randrange(len(self._mixed))]
        place, last = self._place.pop(attempt), self._mixed.pop()
        if last != attempt:
            self._mixed[place] = last
            self._place[last] = place
        del self._since[attempt]
        return attempt

    def age(self, now: int) -> int:
        """Blocks since the oldest was asked for; 0 where nothing waits."""
        return max(0, now - next(iter(self._since.values()))) if self._since else 0

    def behind(self, now: int) -> bool:
        """Whether the verifier is behind with its audits, and has yet to catch up."""
        share = 2 if self._behind else 1
        self._behind = self.age(now) > LATE_BLOCKS // share or len(self) >= MOST // share
        return self._behind
