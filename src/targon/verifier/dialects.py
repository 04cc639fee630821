"""Which work a prover is given: what it says that its engine can do, and what follows from that.

A prover says in ``GET /v1/status`` which dialects it offers, which models, and how many requests it takes at once. It
is asked so once an interval, and again soon after it refused a request by its sampling. Rules that leave it nothing to
gain:

* A prover of which nothing is known, because it doesn't answer in time, or answers with garbage, is asked for
  ``targon/1``, like one that offers it: silence spares nobody.
* What it said is believed for two intervals at most, and never of another address.
* All provers are asked, drawn or not, so that being asked says nothing about a challenge to come.
* ``native`` earns nothing, but it loses nothing either. So it is given only to those who have no score to keep;
  others would live on what they earned once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import anyio
import structlog

from targon.chain import Axon
from targon.protocol.keys import Signer
from targon.protocol.messages import Dialect
from targon.protocol.primitives import Block, Hotkey
from targon.transport import NeuronClient, TransportError

logger = structlog.get_logger(__name__)

STATUS_TIMEOUT_S: Final = 2.0
"""Seconds that a step waits for statuses, of all provers together."""

RETRIES: Final = 12
"""How often in an interval a prover is asked that doesn't say."""

BELIEVED: Final = 2
"""Intervals for which a prover's word holds, where it doesn't repeat it."""

LEAST_BELIEVED: Final = 60
"""Blocks for which it holds at least: where intervals are shortened, one step may outlast two of them, and provers are
asked by steps."""


def dialect_for(
    offered: Collection[Dialect], score: float = 0.0, temperature: float | None = None
) -> Dialect:
    """The dialect that a prover is asked for in a challenge.

    Args:
        offered: what it says that it can do; empty where it didn't say.
        score: what it has earned, which ``native`` work would let it keep.
        temperature: of the challenge: 0 goes to ``greedy``, as a user's does.
    """
    if temperature == 0.0 and "greedy" in offered:
        return "greedy"
    if "targon/1" in offered:
        return "targon/1"
    if "greedy" in offered:
        return "greedy"
    if "native" in offered and score == 0.0:
        return "native"
    return "targon/1"


def dialect_of_inference(
    offered: Collection[Dialect], temperature: float, score: float = 0.0
) -> Dialect | None:
    """The dialect in which a prover is asked for what a user wants; None: it offers none for it.

    As for a challenge, but that a user's temperature is not ours to change, and that nobody is asked who says nothing.
    """
    dialect = dialect_for(offered, score, temperature)
    if dialect not in offered or (dialect == "greedy" and temperature > 0.0):
        return "native" if "native" in offered and score == 0.0 else None
    return dialect


_NEVER: Final = Block(-1)


@dataclass(slots=True)
class _Word:
    """What one prover said last."""

    axon: Axon
    due: Block
    """The block from which on it is asked again."""
    dialects: tuple[Dialect, ...] = ()
    models: tuple[str, ...] = ()
    capacity: int = 0
    until: Block = _NEVER
    """The last block in which that is believed."""


class Offers:
    """What provers offer, by their own word. Kept in memory alone: they are asked anew after a restart.

    Never raises for what a prover does.
    """

    def __init__(self, client: NeuronClient, signer: Signer, interval_blocks: int) -> None:
        self._client = client
        self._signer = signer
        self._interval = interval_blocks
        self._words: dict[Hotkey, _Word] = {}

    def of(self, prover: Hotkey, block: Block) -> tuple[Dialect, ...]:
        """What a prover offers in a block; empty where that isn't known."""
        word = self._words.get(prover)
        return () if word is None or block > word.until else word.dialects

    def capacity(self, prover: Hotkey, model: str, block: Block) -> int:
        """How many requests a prover says that it takes at once, if it serves a model; 0 where it doesn't say."""
        word = self._words.get(prover)
        return 0 if word is None or block > word.until or model not in word.models else word.capacity

    def doubt(self, prover: Hotkey) -> None:
        """Ask a prover again at the next refresh: it refused what it had been thought to offer."""
        if prover in self._words:
            self._words[prover].due = Block(0)

    async def refresh(self, provers: Iterable[tuple[Hotkey, Axon]], block: Block) -> None:
        """Ask all for whom it is time, at once, and wait a moment for what they say; the others are forgotten."""
        here = dict(provers)
        self._words = {
            prover: self._words[prover] if self._knows(prover, axon) else _Word(axon, block)
            for prover, axon in here.items()
        }
        with anyio.move_on_after(STATUS_TIMEOUT_S):
            async with anyio.create_task_group() as group:
                for prover, word in self._words.items():
                    if block >= word.due:
                        word.due = Block(block + max(1, self._interval // RETRIES))
                        group.start_soon(self._ask, prover, word, block)

    def _knows(self, prover: Hotkey, axon: Axon) -> bool:
        return prover in self._words and self._words[prover].axon == axon

    async def _ask(self, prover: Hotkey, word: _Word, block: Block) -> None:
        try:
            status = await self._client.status(word.axon, prover, self._signer)
        except TransportError as error:
            logger.info("status_unknown", prover=prover, kind=type(error).__name__, error=str(error))
            return
        if status.hotkey != prover:
            logger.info("status_unknown", prover=prover, error=f"it says that it is {status.hotkey}")
            return
        word.dialects, word.models, word.capacity = status.dialects, status.models, status.capacity
        word.until = Block(block + max(BELIEVED * self._interval, LEAST_BELIEVED))
        word.due = Block(block + self._interval)
