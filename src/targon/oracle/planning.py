"""Which blocks a period has. Decisions only."""

from __future__ import annotations

from typing import Final

from targon.protocol.primitives import Block
from targon.protocol.private_inputs import MAX_VERIFIERS
from targon.protocol.schedule import interval_of

MARGIN_BLOCKS: Final = 2
"""How many blocks before its first a period is committed to, at least."""
MOST_AHEAD: Final = 2
"""Periods that are committed to and haven't begun, at most: a verifier remembers the newest three commitments."""
FIRST_BLOCKS: Final = 6
"""Of a period that nothing comes before: the sooner it is filled, the shorter nobody is served."""
MOST_AT_ONCE: Final = 16_384
"""Private inputs of one block, of all verifiers together: they are held in memory."""


def first_of(head: Block, last: Block | None, *, slack: int = 0) -> Block:
    """The first block that the next period may have.

    Args:
        last: the last block that was committed to.
        slack: blocks that are added to the margin, where writing takes long.
    """
    soonest = head + MARGIN_BLOCKS + slack
    return Block(soonest if last is None else max(last + 1, soonest))


def last_of(first: Block, *, period_blocks: int, interval_blocks: int, follows: bool) -> Block:
    """The last block that a period may have. Periods end where a multiple of their length, or an interval, ends.

    Args:
        follows: whether it begins where another one ends.
    """
    interval_ends = (interval_of(first, interval_blocks) + 1) * interval_blocks - 1
    period_ends = (first // period_blocks + 1) * period_blocks - 1
    soonest = first + FIRST_BLOCKS - 1
    return Block(min(interval_ends, period_ends, period_ends if follows else soonest))


def places_for(verifiers: int, places: int) -> int:
    """How many places each of so many verifiers can have, of as many as are wanted."""
    return max(1, min(places, MOST_AT_ONCE // min(verifiers, MAX_VERIFIERS)))
