"""A node's block numbers, held to the clock (:mod:`targon.chain.pace`). Says aloud what isn't believed, and asks the
next node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from targon.chain.bittensor.connection import Connection
from targon.chain.errors import ChainAhead
from targon.chain.pace import STEADY_BLOCKS, Pace
from targon.protocol.primitives import Block

TURN_BLOCKS: Final = 5
"""Between two changes of node while what they tell is doubted: each costs half a megabyte."""

logger = structlog.get_logger(__name__)


def since_boot_s() -> float:
    """Seconds since some moment. Where the system tells, they go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class HeldToClock:
    """Believes a node's block or doesn't.

    Args:
        seen: a block that was seen on the chain before, and how many seconds ago.
    """

    def __init__(
        self, connection: Connection, elapsed_s: Callable[[], float], seen: tuple[Block, float] | None
    ) -> None:
        self._connection = connection
        self._elapsed_s = elapsed_s
        self._pace = Pace() if seen is None else Pace(seen[0], elapsed_s() - seen[1])
        self._block_seconds: float | None = None
        self._turned_s = float("-inf")

    async def check(self, told: Block, block_seconds: float) -> None:
        """Look at a block that a node tells as the newest.

        Raises:
            ChainAhead: if the chain can't be there by now.
        """
        pace = self._block_seconds = self._block_seconds or block_seconds  # the next node might tell another
        now_s, doubted = self._elapsed_s(), self._pace.doubts
        highest = self._pace.highest(now_s, pace)
        if self._pace.believes(told, now_s, pace):
            if doubted:
                logger.warning("chain_believed_again", block=told, endpoint=self._connection.endpoint)
            return
        assert highest is not None  # the first one is believed
        ahead = ChainAhead(told, highest, self._connection.endpoint, STEADY_BLOCKS * pace / 60)
        if not doubted:
            logger.error("chain_ahead", error=str(ahead))
        if now_s - self._turned_s >= TURN_BLOCKS * pace:
            self._turned_s = now_s
            await self._connection.turn(f"it tells block {told}, which can't be there yet")
        raise ahead
