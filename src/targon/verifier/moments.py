"""What every request names of its moment: block, log head, and the secret that its draws come from.

A request is made while its attempt is being logged, when nobody can be asked. So the chain's newest block is noted as
it comes; the rest follows from the log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Final

import anyio
import structlog

from targon.chain import Chain, ChainError, SubnetInfo
from targon.protocol.primitives import Block, Digest, Interval
from targon.protocol.schedule import MAX_BLOCK_AGE
from targon.transport.errands import NotReady
from targon.verifier.asking import Moment
from targon.verifier.journal import Journal

MAX_SILENT_BLOCKS: Final = MAX_BLOCK_AGE - 2
"""Blocks' time without a new block after which no request is made: provers refuse older ones, and one is on its way."""
CALL_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05

logger = structlog.get_logger(__name__)


class Moments:
    """The present moment, kept fresh by :meth:`run`."""

    def __init__(
        self,
        chain: Chain,
        journal: Journal,
        secret_of: Callable[[Interval], bytes],
        info: Callable[[], SubnetInfo],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._chain = chain
        self._journal = journal
        self._secret_of = secret_of
        self._info = info
        self._monotonic_s = monotonic_s
        self._newest: tuple[Block, Digest] | None = None
        self._heard_s = 0.0
        self._made: Moment | None = None

    async def run(self) -> None:
        """Note each block, for ever."""
        async with aclosing(self._chain.blocks()) as blocks:
            async for block in blocks:
                await self._note(block)

    async def _note(self, block: Block) -> None:
        try:
            with anyio.fail_after(CALL_TIMEOUT_S):
                self._newest = block, await self._chain.block_hash(block)
        except (ChainError, TimeoutError) as error:
            logger.warning("block_hash_unknown", block=block, kind=type(error).__name__, error=str(error))
        else:
            self._heard_s = self._monotonic_s()

    async def reached(self, block: Block) -> None:
        """Wait until requests name a block, or a later one; not for ever."""
        with anyio.move_on_after(CALL_TIMEOUT_S):
            while self._newest is None or self._newest[0] < block:
                await anyio.sleep(POLL_S)

    def now(self) -> Moment:
        """The moment of a request whose attempt is logged next.

        Raises:
            NotReady: if there is no interval open, or the chain is silent for too long.
        """
        standings, info = self._journal.standings, self._info()
        if self._newest is None or standings.interval is None:
            raise NotReady("the verifier has only begun: no interval is open yet", info.block_seconds)
        silent_s = self._monotonic_s() - self._heard_s
        if silent_s > MAX_SILENT_BLOCKS * max(1.0, info.block_seconds):
            raise NotReady(
                f"the chain brought no block for {silent_s:.0f} s; provers refuse requests that name old ones",
                info.block_seconds,
            )
        block, block_hash = self._newest
        made = self._made
        if made is None or made.block != block or made.log_head != standings.interval_head:
            made = self._made = Moment(
                genesis=info.genesis,
                netuid=info.netuid,
                block=block,
                block_hash=block_hash,
                log_head=standings.interval_head,
                secret=self._secret_of(standings.interval),
            )
        return made
