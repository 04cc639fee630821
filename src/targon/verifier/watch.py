"""What the chain says of callers and of ourselves: a copy that is kept fresh beside the steps.

A step may take many blocks; who may call, what block it is and where we are announced must not wait for it.
How old the copy may be is bounded: past that, callers are refused rather than judged by what is no longer so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Final

import anyio
import structlog

from targon.chain import Chain, ChainError, ChainUnavailable, Metagraph, Neuron, SubnetInfo
from targon.protocol.primitives import Block, Hotkey
from targon.transport import Code, Refusal

METAGRAPH_BLOCKS: Final = 5
"""The metagraph is read anew every this many blocks."""
CALL_TIMEOUT_S: Final = 10.0
MAX_AGE_S: Final = 300.0
"""How old our last sight of the chain may be for callers to be judged by it."""

logger = structlog.get_logger(__name__)


class ChainWatch:
    """The copy, and the task that keeps it fresh. Open it with :meth:`open`, then :meth:`run` it."""

    def __init__(self, chain: Chain, hotkey: Hotkey, monotonic_s: Callable[[], float]) -> None:
        self._chain = chain
        self._hotkey = hotkey
        self._monotonic_s = monotonic_s
        self._info: SubnetInfo | None = None
        self._metagraph: Metagraph | None = None
        self._registered: frozenset[Hotkey] = frozenset()
        self._read_s = 0.0
        self._block = Block(0)
        self._heard_s = 0.0
        self._news = anyio.Event()

    async def open(self) -> None:
        """Read the chain for the first time.

        Raises:
            ChainError: if it does not answer.
        """
        try:
            with anyio.fail_after(CALL_TIMEOUT_S):
                self._info = await self._chain.info()
        except TimeoutError:
            raise ChainUnavailable(f"the chain gave no answer within {CALL_TIMEOUT_S:g} s") from None
        self._hear(await self._read())

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
                        logger.warning("chain_does_not_answer", error=str(error))
                    failing = True
                else:
                    failing = False

    @property
    def info(self) -> SubnetInfo:
        if self._info is None:
            raise RuntimeError("the watch was not opened")
        return self._info

    @property
    def block(self) -> Block:
        """The newest block that was seen."""
        return self._block

    @property
    def silence_s(self) -> float:
        """How long the chain has brought no new block."""
        return self._monotonic_s() - self._heard_s

    @property
    def me(self) -> Neuron | None:
        """What the chain says of us; None: that our hotkey has no UID."""
        return None if self._metagraph is None else self._metagraph.by_hotkey(self._hotkey)

    async def next_metagraph(self) -> None:
        """Wait until the metagraph was read anew."""
        await self._news.wait()

    def admit(self, hotkey: Hotkey) -> None:
        """Let registered callers in. Decides at once, from the copy.

        Raises:
            Refusal: ``not_registered``, or ``chain_unavailable`` if the copy is too old to judge by.
        """
        age_s = self._monotonic_s() - self._read_s
        if age_s > MAX_AGE_S:
            raise Refusal(
                Code.CHAIN_UNAVAILABLE,
                "we have not seen the chain for too long to know who you are",
                got=f"{age_s:.0f} s",
                expected=f"at most {MAX_AGE_S:.0f} s",
                retry_after_s=self.info.block_seconds,
            )
        if hotkey not in self._registered:
            raise Refusal(
                Code.NOT_REGISTERED,
                f"the caller's hotkey has no UID on subnet {self.info.netuid}; register it first",
                got=hotkey,
            )

    def _hear(self, block: Block) -> None:
        self._block = max(self._block, block)
        self._heard_s = self._monotonic_s()

    async def _read(self) -> Block:
        try:
            with anyio.fail_after(CALL_TIMEOUT_S):
                metagraph = await self._chain.metagraph()
        except TimeoutError:
            raise ChainUnavailable(f"the chain gave no answer within {CALL_TIMEOUT_S:g} s") from None
        self._metagraph = metagraph
        self._registered = frozenset(neuron.hotkey for neuron in metagraph.neurons)
        self._read_s = self._monotonic_s()
        self._news.set()
        self._news = anyio.Event()
        return metagraph.block
