"""Worlds: one chain of one subnet each, built for a test in whatever way its adapter has for that.

An adapter joins the conformance suites by adding its world to :func:`worlds`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from targon.chain import Chain, ChainSettings, EmbeddedChain
from targon.protocol.keys import Signer
from targon.protocol.primitives import Uid

NETUID = 4
TEMPO = 10
VERSION_KEY = 7
RATE_LIMIT = 3
MAX_UIDS = 8


class World(Protocol):
    """A chain with a subnet of tempo 10, version key 7, rate limit 3, 8 UIDs, no immunity, 2 validators."""

    @property
    def chain(self) -> Chain: ...

    @property
    def netuid(self) -> int: ...

    async def register(self, signer: Signer) -> Uid:
        """Register a hotkey on the subnet."""
        ...

    async def stake(self, signer: Signer, amount_tao: float) -> None:
        """Add stake, and wait for the permit that it is worth."""
        ...

    async def advance(self, blocks: int) -> None:
        """Let at least this many blocks pass."""
        ...

    async def epoch(self) -> None:
        """Let blocks pass until the next epoch is over."""
        ...

    async def use_commit_reveal(self) -> None:
        """From now on weights are committed to, and revealed one epoch later."""
        ...

    async def aclose(self) -> None: ...


class EmbeddedWorld:
    """The embedded chain under a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self._now = 1_000_000.0
        settings = ChainSettings(
            netuid=NETUID,
            block_seconds=2.0,
            tempo=TEMPO,
            weights_version_key=VERSION_KEY,
            weights_rate_limit=RATE_LIMIT,
            max_uids=MAX_UIDS,
            max_validators=2,
            immunity_blocks=0,
        )
        self._chain = EmbeddedChain.create(folder / "chain.sqlite", settings, clock=lambda: self._now)

    @classmethod
    async def create(cls, folder: Path) -> EmbeddedWorld:
        return cls(folder)

    @property
    def chain(self) -> Chain:
        return self._chain

    @property
    def netuid(self) -> int:
        return NETUID

    async def register(self, signer: Signer) -> Uid:
        return self._chain.register(signer)

    async def stake(self, signer: Signer, amount_tao: float) -> None:
        self._chain.add_stake(signer, amount_tao)

    async def advance(self, blocks: int) -> None:
        self._now += 2.0 * blocks

    async def epoch(self) -> None:
        await self.advance(TEMPO - await self._chain.block() % TEMPO)

    async def use_commit_reveal(self) -> None:
        self._chain.set_commit_reveal(reveal_epochs=1)

    async def aclose(self) -> None:
        await self._chain.aclose()


def worlds() -> dict[str, Callable[[Path], Awaitable[World]]]:
    """How to build each world that can be had here: a Subtensor node is only where one is named."""
    from tests.chain.simulated_world import SimulatedWorld
    from tests.chain.subtensor_world import SubtensorWorld, endpoint

    found: dict[str, Callable[[Path], Awaitable[World]]] = {
        "embedded": EmbeddedWorld.create,
        "simulated": SimulatedWorld.older,
        "simulated-newer": SimulatedWorld.newer,
    }
    if endpoint() is not None:
        found["subtensor"] = SubtensorWorld.create
    return found
