"""Anchoring: the head of each interval's log goes on chain, so that a log that was changed later doesn't match."""

from __future__ import annotations

import structlog

from targon.chain import Chain, ChainError, ChainUnavailable, RateLimited
from targon.ledger import HeadAnchored
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey
from targon.verifier.journal import Journal

logger = structlog.get_logger(__name__)

RETRY_BLOCKS = 10
"""Blocks between two tries that the chain refused."""


class Anchors:
    """Puts interval heads on chain. One at a time calls :meth:`step`."""

    def __init__(self, chain: Chain, journal: Journal, signer: Signer) -> None:
        self._chain = chain
        self._journal = journal
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._not_before = Block(0)

    async def step(self, block: Block) -> None:
        """Anchor the open interval's head, unless it is.

        Raises:
            ChainUnavailable: if the chain cannot be asked; the next step tries again.
            LedgerError: if it cannot be logged. What the chain refuses is told the operator, and tried again.
        """
        standings = self._journal.standings
        interval, head = standings.interval, standings.interval_head
        if interval is None or interval == standings.anchored or block < self._not_before:
            return
        try:
            # A crash may have come between the chain and the log: what stands there already is not sent again.
            found = await self._chain.anchor_of(self._hotkey)
            stands_in = (
                found.block
                if found is not None and found.digest == head
                else await self._chain.anchor(self._signer, head)
            )
        except ChainUnavailable:
            raise
        except RateLimited as error:
            self._not_before = error.allowed_at
            return
        except ChainError as error:
            self._not_before = Block(block + RETRY_BLOCKS)
            logger.warning(
                "head_not_anchored", interval=interval, error=str(error), again_at=self._not_before
            )
            return
        noted = await self._journal.append_made(
            lambda _: (
                [HeadAnchored(interval=interval, head=head, block=stands_in)]
                if standings.interval == interval
                else []
            )
        )
        if noted:
            logger.info("head_anchored", interval=interval, block=stands_in)
        else:
            logger.warning("head_anchored_too_late", interval=interval, block=stands_in)
