"""What a verifier relies on, written down at the start and at each change."""

from __future__ import annotations

import anyio

from targon.chain import Chain, ChainError
from targon.engines import Borrowed, Engine
from targon.ledger import ReliesOn
from targon.protocol.primitives import Block, Hotkey
from targon.verifier.journal import Journal

MAX_WHY = 200
POLL_S = 0.05
RETRY_S = 2.0


class Reliance:
    """Says in the log where private inputs come from, and queries and scores where there is no engine."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = anyio.Lock()
        self._said: tuple[tuple[Hotkey, ...], tuple[Hotkey, ...], int] | None = None
        self.inputs: tuple[Hotkey, ...] = ()
        self._reference: tuple[Hotkey, ...] = ()
        self._agreeing = 0

    async def inputs_from(self, oracles: tuple[Hotkey, ...], block: Block, why: str) -> bool:
        """Private inputs come from these from now on; empty: from the verifier's own source. Whether that is news."""
        self.inputs = oracles
        return await self._say(block, why)

    async def reference_from(
        self, oracles: tuple[Hotkey, ...], agreeing: int, block: Block, why: str
    ) -> bool:
        """As :meth:`inputs_from`, for queries and scores; empty: from the verifier's own engine."""
        self._reference, self._agreeing = oracles, agreeing
        return await self._say(block, why)

    async def tell_engine(self, engine: Engine, chain: Chain) -> None:
        """Say whose engine judges, as soon as the log has begun."""
        while self._journal.standings.opened is None:
            await anyio.sleep(POLL_S)
        while True:
            try:
                block = await chain.block()
                break
            except ChainError:  # it is said by whoever watches the chain
                await anyio.sleep(RETRY_S)
        if isinstance(engine, Borrowed):
            why = f"this verifier has no engine, and asks {len(engine.lent_by)} oracles for what theirs say"
            await self.reference_from(tuple(engine.lent_by), engine.agreeing, block, why)
        else:
            await self.reference_from((), 0, block, "an engine of its own judges")

    async def _say(self, block: Block, why: str) -> bool:
        async with self._lock:
            now = self.inputs, self._reference, self._agreeing
            if now == self._said:
                return False
            if now == ((), (), 0) and self._journal.standings.relies_on is None:
                self._said = now
                return True  # a log that never spoke of others needn't begin with it
            inputs, reference, agreeing = self._said = now
            await self._journal.append(
                ReliesOn(
                    block=block, inputs=inputs, reference=reference, agreeing=agreeing, why=why[:MAX_WHY]
                )
            )
            return True
