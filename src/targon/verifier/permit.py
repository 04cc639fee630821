"""Since when we hold a validator permit, as far as was seen, and whether oracles leave us out: who has held one for
long enough has a place at each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import structlog

from targon.chain import Chain, ChainError
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import PLACE_AFTER_BLOCKS, CommitmentBody

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


class OurPlace:
    """Whether an oracle has a place for us. That it leaves us out is said loudly, and once until it ends.

    Args:
        tell: counts a trouble, by its kind.
    """

    def __init__(self, oracle: Hotkey, me: Hotkey, permit: Permit, tell: Callable[[str], None]) -> None:
        self._oracle = oracle
        self._me = me
        self._permit = permit
        self._tell = tell
        self.left_out = ""
        """That the newest commitment leaves us out, in words; empty: it doesn't, or we have no right to a place yet."""

    def look(self, body: CommitmentBody) -> None:
        """Look for our place in a commitment that comes next."""
        if self._me in body.verifiers:
            if self.left_out:
                logger.info("oracle_has_a_place_again", oracle=self._oracle, first=body.first)
            self.left_out = ""
            return
        since = self._permit.since
        if since is None or body.first - since < PLACE_AFTER_BLOCKS:
            return
        self._tell("left_out")
        said = self.left_out
        self.left_out = (
            f"it leaves this verifier out of blocks {body.first} to {body.last}, which has had a permit since block "
            f"{since} or longer"
        )
        if not said:
            logger.error(
                "oracle_leaves_us_out",
                oracle=self._oracle,
                error=self.left_out,
                do="private inputs come from the verifier's own source: ask the oracle's operator why, or name another "
                "oracle (--oracle.url)",
            )
