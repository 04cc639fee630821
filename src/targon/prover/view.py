"""A prover's view of the chain: a copy that is kept fresh in the background, so that admission never waits.

How old the copy may be is bounded: past ``max_age_s`` without a word from the chain, callers are refused
(``chain_unavailable``) rather than judged by what is no longer so. A request that names a block newer than
the copy's may wait briefly for one refresh; that is after its signature was checked, never before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import structlog

from targon.chain.errors import ChainError
from targon.chain.port import Chain, Metagraph, Neuron, SubnetInfo
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.protocol.schedule import MAX_BLOCK_AGE, is_fresh
from targon.prover.errors import CannotStart
from targon.transport import Code, Refusal

CALL_TIMEOUT_S = 10.0
START_TRIES = 5
CATCH_UP_S = 3.0
"""How long a request may wait for a block that the chain may have and we don't."""
UNSETTLED_BLOCKS = 2
"""How many of the newest blocks may still be replaced by others."""
METAGRAPH_BLOCKS = 5
"""The metagraph is read anew every this many blocks."""


@dataclass(frozen=True, slots=True)
class _Copy:
    metagraph: Metagraph
    neurons: dict[Hotkey, Neuron]
    head: Block
    hashes: dict[Block, Digest]
    seen_s: float


class ChainView:
    """The copy, and the task that keeps it fresh.

    Args:
        monotonic_s: the clock that age is measured by.
    """

    def __init__(self, chain: Chain, *, max_age_s: float, monotonic_s: Callable[[], float]) -> None:
        self._chain = chain
        self._max_age_s = max_age_s
        self._monotonic_s = monotonic_s
        self._copy: _Copy | None = None
        self._info: SubnetInfo | None = None
        self._refreshing = anyio.Lock()
        self._tried_s = float("-inf")
        self._log = structlog.get_logger("targon.prover")

    @property
    def info(self) -> SubnetInfo:
        if self._info is None:
            raise RuntimeError("the view was not opened")
        return self._info

    async def open(self) -> None:
        """Read the chain for the first time.

        Raises:
            CannotStart: if it does not answer within a few tries.
        """
        for attempt in range(1, START_TRIES + 1):
            try:
                with anyio.fail_after(CALL_TIMEOUT_S):
                    self._info = await self._chain.info()
                await self._refresh()
            except (ChainError, TimeoutError) as error:
                if attempt == START_TRIES:
                    raise CannotStart(
                        f"the chain did not answer in {START_TRIES} tries ({_what(error)}); is it running, "
                        "and does --subtensor.network name it?"
                    ) from error
                await anyio.sleep(0.2 * 2**attempt)
            else:
                return

    async def keep_fresh(self, on_metagraph: Callable[[Neuron | None], None], hotkey: Hotkey) -> None:
        """Refresh for ever; tell what the metagraph says of ``hotkey`` each time that it was read anew."""
        pause_s = min(max(self.info.block_seconds / 4, 0.05), 3.0)
        failing = False
        known = self._latest().metagraph
        while True:
            await anyio.sleep(pause_s)
            try:
                await self._refresh()
            except (ChainError, TimeoutError) as error:
                if not failing:
                    self._log.warning("chain does not answer", error=_what(error))
                failing = True
                continue
            if failing:
                self._log.info("chain answers again", block=self.head)
            failing = False
            copy = self._latest()
            if copy.metagraph is not known:
                known = copy.metagraph
                on_metagraph(copy.neurons.get(hotkey))

    @property
    def head(self) -> Block:
        return self._latest().head

    def neuron(self, hotkey: Hotkey) -> Neuron | None:
        """What the chain says of a hotkey; None: it has no UID. Decides at once, from the copy.

        Raises:
            Refusal: ``chain_unavailable`` if the copy is too old to judge by.
        """
        return self._young().neurons.get(hotkey)

    async def check_block(self, block: Block, block_hash: Digest) -> None:
        """Check that a request's block is one of the chain's, and recent.

        Raises:
            Refusal: ``stale_block``, ``wrong_block_hash`` or ``chain_unavailable``.
        """
        if block > self._latest().head:
            await self._catch_up()
        copy = self._young()
        if not is_fresh(block, copy.head):
            raise Refusal(
                Code.STALE_BLOCK,
                "the request names a block that is too old, or not there yet",
                got=block,
                expected=f"{copy.head - MAX_BLOCK_AGE} to {copy.head}, our current block",
            )
        expected = copy.hashes.get(block)
        if expected != block_hash:
            raise Refusal(
                Code.WRONG_BLOCK_HASH,
                f"that is not the hash of block {block} on this chain; are you on another fork?",
                got=block_hash,
                expected=expected,
            )

    async def _catch_up(self) -> None:
        """One refresh for everybody who waits, and not more often than a few times per block."""
        asked_s = self._monotonic_s()
        try:
            with anyio.fail_after(CATCH_UP_S):
                async with self._refreshing:
                    # Whoever read after we asked has read for us, too. Else it is our turn, once it may be.
                    if self._tried_s < asked_s:
                        spacing_s = min(self.info.block_seconds / 8, 0.5)
                        await anyio.sleep(max(0.0, self._tried_s + spacing_s - asked_s))
                        await self._read()
        except (ChainError, TimeoutError) as error:
            raise Refusal(
                Code.CHAIN_UNAVAILABLE,
                "we cannot see the chain now, and so not the block that you name; try again",
                retry_after_s=self.info.block_seconds,
            ) from error

    async def _refresh(self) -> None:
        async with self._refreshing:
            await self._read()

    async def _read(self) -> None:
        self._tried_s = self._monotonic_s()
        old = self._copy
        with anyio.fail_after(CALL_TIMEOUT_S):
            head = await self._chain.block()
            recent = range(max(0, head - MAX_BLOCK_AGE), head + 1)
            hashes = {Block(block): await self._hash(Block(block)) for block in recent}
            if old is None or head >= old.metagraph.block + METAGRAPH_BLOCKS or head < old.head:
                metagraph = await self._chain.metagraph()
                neurons = {neuron.hotkey: neuron for neuron in metagraph.neurons}
            else:
                metagraph, neurons = old.metagraph, old.neurons
        self._copy = _Copy(metagraph, neurons, head, hashes, self._monotonic_s())

    async def _hash(self, block: Block) -> Digest:
        """A block's hash; that of the newest is read again, as they may still be replaced."""
        known = self._copy
        if known is not None and block < known.head - UNSETTLED_BLOCKS and block in known.hashes:
            return known.hashes[block]
        return await self._chain.block_hash(block)

    def _latest(self) -> _Copy:
        if self._copy is None:
            raise RuntimeError("the view was not opened")
        return self._copy

    def _young(self) -> _Copy:
        copy = self._latest()
        age_s = self._monotonic_s() - copy.seen_s
        if age_s > self._max_age_s:
            raise Refusal(
                Code.CHAIN_UNAVAILABLE,
                "we have not seen the chain for too long to know who you are",
                got=f"{age_s:.0f} s",
                expected=f"at most {self._max_age_s:.0f} s",
                retry_after_s=self.info.block_seconds,
            )
        return copy


def _what(error: ChainError | TimeoutError) -> str:
    return str(error) if isinstance(error, ChainError) else f"no answer within {CALL_TIMEOUT_S:g} s"
