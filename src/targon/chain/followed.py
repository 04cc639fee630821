"""What the chain says, as a copy that is kept fresh beside what goes by it.

Nobody who decides by it waits for the chain. How old it may get before nobody should, they say: see
:attr:`FollowedChain.age_s`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

import anyio
import structlog

from targon.chain.errors import ChainError, ChainUnavailable
from targon.chain.port import Chain, Metagraph, Neuron, SubnetInfo
from targon.protocol.primitives import Block, Digest, Hotkey

METAGRAPH_BLOCKS: Final = 5
"""The metagraph is read anew every this many blocks."""
CALL_TIMEOUT_S: Final = 10.0
MAX_AGE_S: Final = 300.0
"""How old our last sight of the metagraph may be for callers to be judged by it."""

T = TypeVar("T")


class FollowedChain:
    """The copy, and the task that keeps it fresh. Open it with :meth:`open`, then :meth:`run` it.

    Args:
        log: where it is said that the chain doesn't answer: once for each time that it stops.
    """

    def __init__(
        self, chain: Chain, monotonic_s: Callable[[], float], log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._chain = chain
        self._monotonic_s = monotonic_s
        self._log = log
        self._info: SubnetInfo | None = None
        self._metagraph: Metagraph | None = None
        self._registered: frozenset[Hotkey] = frozenset()
        self._read_s = float("-inf")
        self._head = Block(0)
        self._heard_s = monotonic_s()
        self._block_came = anyio.Event()
        self._metagraph_came = anyio.Event()

    async def open(self) -> None:
        """Read the chain for the first time.

        Raises:
            ChainError: if it does not answer.
        """
        self._info = await self._within_time(self._chain.info)
        await self._read()

    async def run(self) -> None:
        """Keep the copy fresh, for ever."""
        failing = False
        async with aclosing(self._chain.blocks()) as blocks:
            async for block in blocks:
                self._hear(block)
                if self._metagraph is not None and block < self._metagraph.block + METAGRAPH_BLOCKS:
                    continue
                try:
                    await self._read()
                except ChainError as error:
                    if not failing:
                        self._log.warning("chain_does_not_answer", error=str(error))
                    failing = True
                else:
                    failing = False

    @property
    def info(self) -> SubnetInfo:
        if self._info is None:
            raise RuntimeError("the chain's copy was not opened")
        return self._info

    @property
    def head(self) -> Block:
        """The newest block that was seen."""
        return self._head

    @property
    def registered(self) -> frozenset[Hotkey]:
        """Who has a UID."""
        return self._registered

    @property
    def silence_s(self) -> float:
        """How long the chain has brought no block, or since this copy was begun."""
        return self._monotonic_s() - self._heard_s

    @property
    def age_s(self) -> float:
        """How long ago the metagraph was read."""
        return self._monotonic_s() - self._read_s

    def by_hotkey(self, hotkey: Hotkey) -> Neuron | None:
        """What the metagraph says of a hotkey; None: that it has no UID."""
        return None if self._metagraph is None else self._metagraph.by_hotkey(hotkey)

    async def next_block(self, after: Block) -> Block:
        """Wait for a block after this one; returns the newest."""
        while self._head <= after:
            await self._block_came.wait()
        return self._head

    async def next_metagraph(self) -> None:
        """Wait until the metagraph was read anew."""
        await self._metagraph_came.wait()

    async def block_hash(self, block: Block) -> Digest:
        """A block's hash.

        Raises:
            ChainError: if the chain gives none.
        """
        return await self._within_time(lambda: self._chain.block_hash(block))

    def _took(self, metagraph: Metagraph) -> None:
        """What a role keeps of a new metagraph beside."""

    def _hear(self, block: Block) -> None:
        self._heard_s = self._monotonic_s()
        if block > self._head:
            self._head = block
            self._block_came.set()
            self._block_came = anyio.Event()

    async def _read(self) -> None:
        metagraph = await self._within_time(self._chain.metagraph)
        self._metagraph = metagraph
        self._registered = frozenset(neuron.hotkey for neuron in metagraph.neurons)
        self._read_s = self._monotonic_s()
        self._took(metagraph)
        self._hear(metagraph.block)
        self._metagraph_came.set()
        self._metagraph_came = anyio.Event()

    async def _within_time(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            with anyio.fail_after(CALL_TIMEOUT_S):
                return await call()
        except TimeoutError:
            raise ChainUnavailable(f"the chain gave no answer within {CALL_TIMEOUT_S:g} s") from None
