"""Whether a chain can be at a block by now. Decides only; whoever asks brings the time.

A block number that is too high does harm that can't be undone: an oracle commits to blocks there, and a verifier's log
goes on there, and neither can go back. So a node's word is held to the clock.

Rules:

1. The first block that is told is believed.
2. From what was believed, a chain comes no further than SLACK_BLOCKS, and FASTER times as many as time has passed for.
3. What lies beyond is doubted. It is believed after all once it has kept step with the clock for STEADY_BLOCKS: then it
   was we who missed something, such as a node that had been behind and has caught up.
4. What a node tells that is in order again is believed at once.
"""

from __future__ import annotations

from typing import Final

from targon.protocol.primitives import Block

SLACK_BLOCKS: Final = 50
"""Ten minutes: nodes lag, and clocks differ."""
FASTER: Final = 1.25
"""A chain's blocks are never sooner than its slots; this is for clocks that go slow."""
STEADY_BLOCKS: Final = 50
"""For how long what is doubted has to keep step."""
STEP_BLOCKS: Final = 5
"""How far one node may be from the next."""


class Pace:
    """What was believed of a chain, and what of it is doubted.

    Args:
        block: one that was seen on it before.
        seen_s: when, by the clock that is given to :meth:`believes`.
    """

    def __init__(self, block: Block | None = None, seen_s: float = 0.0) -> None:
        self._newest = block
        self._ceiling = 0.0 if block is None else float(block + SLACK_BLOCKS)
        self._at_s = seen_s
        self._doubted: tuple[Block, float] | None = None

    @property
    def doubts(self) -> bool:
        """Whether the last block that was told is doubted."""
        return self._doubted is not None

    def highest(self, now_s: float, block_seconds: float) -> Block | None:
        """The highest block that the chain can be at; None: nothing is known of it."""
        if self._newest is None:
            return None
        return Block(int(self._ceiling + FASTER * max(0.0, now_s - self._at_s) / block_seconds))

    def believes(self, told: Block, now_s: float, block_seconds: float) -> bool:
        """Whether the chain can be at the block that a node tells."""
        highest = self.highest(now_s, block_seconds)
        if highest is None or told <= highest or self._has_kept_step(told, now_s, block_seconds):
            newest = told if self._newest is None else max(self._newest, told)
            ceiling = float(newest + SLACK_BLOCKS)
            if highest is not None and told <= highest:
                grown = self._ceiling + FASTER * max(0.0, now_s - self._at_s) / block_seconds
                ceiling = min(ceiling, grown)
            self._newest, self._ceiling, self._at_s, self._doubted = newest, ceiling, now_s, None
            return True
        return False

    def _has_kept_step(self, told: Block, now_s: float, block_seconds: float) -> bool:
        """Whether what is doubted has gone on as a chain does, for long enough."""
        if self._doubted is not None:
            first, since_s = self._doubted
            passed = (now_s - since_s) / block_seconds
            if first - STEP_BLOCKS <= told <= first + FASTER * passed + STEP_BLOCKS:
                return passed >= STEADY_BLOCKS and told - first >= STEADY_BLOCKS / 4
        self._doubted = told, now_s
        return False
