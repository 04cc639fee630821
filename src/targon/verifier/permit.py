"""Since when we hold a validator permit, as far as was seen: who has held one for long enough has a place at every
oracle."""

from __future__ import annotations

from typing import Final

import anyio
import structlog

from targon.chain import Chain, ChainError
from targon.protocol.primitives import Block, Hotkey

LOOK_BLOCKS: Final = 25
"""Between two looks."""
CALL_TIMEOUT_S: Final = 10.0

logger = structlog.get_logger(__name__)


class Permit:
    """A hotkey's validator permit, looked at every few blocks."""

    def __init__(self, chain: Chain, hotkey: Hotkey) -> None:
        self._chain = chain
        self._hotkey = hotkey
        self._next = Block(0)
        self.since: Block | None = None
        """The first block of those in which it was seen, one look after the other; None: it has none."""

    async def look(self, block: Block) -> None:
        """Look, if that is due in a block."""
        if block < self._next:
            return
        try:
            with anyio.fail_after(CALL_TIMEOUT_S):
                metagraph = await self._chain.metagraph()
        except (ChainError, TimeoutError) as error:
            logger.info("permit_not_looked_at", block=block, error=str(error))
            return
        self._next = Block(block + LOOK_BLOCKS)
        neuron = metagraph.by_hotkey(self._hotkey)
        if neuron is None or not neuron.validator_permit:
            self.since = None
        elif self.since is None:
            self.since = metagraph.block
