"""Setting weights: once an epoch, from the log alone."""

from __future__ import annotations

import structlog

from targon.chain import Chain, ChainError, RateLimited, SubnetInfo
from targon.ledger import WeightsNotSet, WeightsSet
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block
from targon.protocol.weights import NoWeights
from targon.verifier.journal import Journal

logger = structlog.get_logger(__name__)


class WeightSetter:
    """Sets weights in the first step of every epoch, and says in the log what came of it."""

    def __init__(self, chain: Chain, journal: Journal, signer: Signer, version_key: int) -> None:
        self._chain = chain
        self._journal = journal
        self._signer = signer
        self._version_key = version_key
        self._retry_at = Block(0)
        self._tried_epoch = -1

    async def set_if_due(self, block: Block, info: SubnetInfo) -> None:
        """Set weights unless this epoch's were set, or the chain asked to wait.

        Raises:
            LedgerError: if the outcome cannot be logged. What the chain refuses is logged, not raised.
        """
        epoch = block // info.tempo
        last = self._journal.standings.weights_block
        if block < self._retry_at or self._tried_epoch == epoch:
            return
        if last is not None and last // info.tempo >= epoch:
            return
        self._tried_epoch = epoch
        weights = self._journal.standings.weights()
        if isinstance(weights, NoWeights):
            await self._journal.append(WeightsNotSet(block=block, reason=weights.reason))
            return
        key = max(self._version_key, info.weights_version_key)
        try:
            set_in = await self._chain.set_weights(self._signer, weights, key)
        except RateLimited as error:
            self._retry_at = error.allowed_at
            self._tried_epoch = -1
            logger.info("weights_rate_limited", allowed_at=error.allowed_at)
        except ChainError as error:
            logger.warning("weights_not_set", error=str(error))
            await self._journal.append(WeightsNotSet(block=block, reason=str(error)[:2000]))
        else:
            pairs = tuple(sorted(weights.items()))
            await self._journal.append(WeightsSet(block=set_in, version_key=key, weights=pairs))
            logger.info("weights_set", block=set_in, provers=len(pairs))
