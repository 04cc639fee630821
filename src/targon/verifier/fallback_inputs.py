"""Private inputs from oracles, in order of preference, and from the verifier's own source where none serves.

Which it is stands in the log, in the output, in the metrics and in ``targon status``: what a verifier draws from its
own source was there for others to read before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import anyio
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from targon.chain import Chain
from targon.protocol.primitives import Block, Hotkey
from targon.verifier.journal import Journal
from targon.verifier.permit import Permit
from targon.verifier.ports import Passage, PrivateInputs, PrivateInputUnavailable
from targon.verifier.reliance import Reliance
from targon.verifier.remote_inputs import OutOfPlaces, RemoteInputs

FIRST_LOOK_S: Final = 6.0
"""How long the first private input waits for the first look at the oracles."""
GIVE_S: Final = 8.0
"""How long all oracles together have for one private input: a block is 12 seconds, and its challenges wait."""
POLL_S: Final = 0.05

logger = structlog.get_logger(__name__)


class InputMetrics:
    """Where private inputs come from, for the operator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.given = Counter(
            "targon_verifier_private_inputs",
            "Private inputs, by where they came from: oracle, own.",
            ["source"],
            registry=registry,
        )
        self._troubles = Counter(
            "targon_verifier_oracle_troubles",
            "Oracles' troubles, by kind: away, refused, unfit, unsettled, out_of_places, left_out, too_often, and what "
            "they were caught at.",
            ["kind"],
            registry=registry,
        )
        self.relies_on_oracle = Gauge(
            "targon_verifier_relies_on_oracle",
            "1 while private inputs come from an oracle, 0 while they come from the verifier's own source.",
            registry=registry,
        )

    def trouble(self, kind: str) -> None:
        """Count a trouble."""
        self._troubles.labels(kind).inc()


class FallbackInputs:
    """The first oracle that serves, else the verifier's own source. :meth:`run` keeps it so."""

    def __init__(
        self,
        oracles: Sequence[RemoteInputs],
        own: PrivateInputs,
        *,
        chain: Chain,
        journal: Journal,
        permit: Permit,
        reliance: Reliance,
        metrics: InputMetrics,
    ) -> None:
        self._oracles = tuple(oracles)
        self._own = own
        self._chain = chain
        self._journal = journal
        self._permit = permit
        self._reliance = reliance
        self._metrics = metrics
        self._looked = anyio.Event()
        self._short: set[Hotkey] = set()
        self.looked_at = Block(-1)
        """The newest block in which the oracles were looked at."""

    async def run(self) -> None:
        """Look at the oracles in each block, for ever."""
        while self._journal.standings.opened is None:
            await anyio.sleep(POLL_S)
        async with aclosing(self._chain.blocks()) as blocks:
            async for block in blocks:
                async with anyio.create_task_group() as group:
                    if self._oracles:
                        group.start_soon(self._permit.look, block)
                    for oracle in self._oracles:
                        group.start_soon(oracle.look, block)
                await self._tell(block)
                self.looked_at = block
                self._looked.set()

    @property
    def relies(self) -> tuple[Hotkey, ...]:
        """The oracles that private inputs come from now; empty: the verifier's own source."""
        return self._reliance.inputs

    async def private_input(self, block: Block, draw: int) -> Passage:
        """The passage of a draw in a block.

        Raises:
            PrivateInputUnavailable: if not even the verifier's own source has one.
        """
        if self._oracles and not self._looked.is_set():
            with anyio.move_on_after(FIRST_LOOK_S):
                await self._looked.wait()
        with anyio.move_on_after(GIVE_S) as scope:
            passage = await self._given(block, draw)
            if passage is not None:
                self._metrics.given.labels("oracle").inc()
                return passage
        if scope.cancelled_caught:
            logger.warning(
                "private_input_not_given", block=block, error=f"no oracle gave one within {GIVE_S:g} s"
            )
        await self._tell(block)
        self._metrics.given.labels("own").inc()
        return await self._own.private_input(block, draw)

    async def _given(self, block: Block, draw: int) -> Passage | None:
        """What the first oracle gives that does."""
        for oracle in self._oracles:
            if oracle.trouble(block) is not None:
                continue
            try:
                return await oracle.private_input(block, draw)
            except OutOfPlaces as error:
                self._say_too_few(oracle.oracle, error)
            except PrivateInputUnavailable as error:
                logger.warning("private_input_not_given", block=block, error=str(error))
        return None

    def _say_too_few(self, oracle: Hotkey, error: OutOfPlaces) -> None:
        """Say once, not for each draw of each block, that an oracle gives fewer than are asked for."""
        if oracle not in self._short:
            self._short.add(oracle)
            logger.warning(
                "oracle_gives_too_few",
                error=str(error),
                do="the rest comes from the verifier's own source, in each block: ask the oracle's operator for more "
                "(--oracle.places there), or challenge fewer provers in a block (--neuron.sample_size)",
            )

    async def _tell(self, block: Block) -> None:
        """Say where private inputs come from, if that has changed."""
        serving = next((each for each in self._oracles if each.trouble(block) is None), None)
        self._metrics.relies_on_oracle.set(serving is not None)
        if serving is not None:
            why = "it serves, and what it gives was committed to in time"
            if await self._reliance.inputs_from((serving.oracle,), block, why):
                logger.info("private_inputs_from_oracle", oracle=serving.oracle, block=block)
            return
        why = "; ".join(f"{each.oracle[:8]}…: {each.trouble(block)}" for each in self._oracles)
        if await self._reliance.inputs_from((), block, why or "no oracle is named") and self._oracles:
            logger.warning("private_inputs_from_own_source", why=why, block=block)
