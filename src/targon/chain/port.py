"""The chain port: who is registered, where, with what stake; blocks; weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Digest, Hotkey, Uid


@dataclass(frozen=True, slots=True)
class Axon:
    """Where a neuron serves."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Neuron:
    """One registered neuron, as the chain has it."""

    uid: Uid
    hotkey: Hotkey
    stake: float
    """In TAO."""
    validator_permit: bool
    axon: Axon | None
    """None: not serving."""
    registered_at: Block
    last_update: Block | None
    """The block in which it last set weights; None: never."""
    incentive: float
    """Share of the last epoch's prover rewards, 0 to 1."""
    dividends: float
    """Share of the last epoch's verifier rewards, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Metagraph:
    """Every neuron of one subnet, at one block."""

    netuid: int
    block: Block
    neurons: tuple[Neuron, ...]

    def by_hotkey(self, hotkey: Hotkey) -> Neuron | None:
        return next((neuron for neuron in self.neurons if neuron.hotkey == hotkey), None)

    def by_uid(self, uid: Uid) -> Neuron | None:
        return next((neuron for neuron in self.neurons if neuron.uid == uid), None)


@dataclass(frozen=True, slots=True)
class SubnetInfo:
    """The subnet's own settings, as far as a neuron needs them."""

    netuid: int
    genesis: Digest
    """Hash of block 0: which network this is."""
    block_seconds: float
    tempo: int
    """Blocks from one epoch to the next."""
    weights_version_key: int
    """Weights set with a lower version key are refused."""
    weights_rate_limit: int
    """Least number of blocks between two settings of weights by one neuron."""


class Chain(Protocol):
    """What a neuron asks of the chain. Errors are those of :mod:`targon.chain.errors`."""

    async def info(self) -> SubnetInfo: ...

    async def block(self) -> Block:
        """The current block's number."""
        ...

    async def block_hash(self, block: Block) -> Digest:
        """A block's hash.

        Raises:
            UnknownBlock: if the block lies in the future.
        """
        ...

    async def metagraph(self) -> Metagraph: ...

    async def serve_axon(self, signer: Signer, axon: Axon) -> None:
        """Announce where a neuron serves.

        Raises:
            NotRegistered: if the signer's hotkey has no UID.
        """
        ...

    async def set_weights(self, signer: Signer, weights: Mapping[Uid, int], version_key: int) -> Block:
        """Set a verifier's weights (u16 per UID, zeros left out); returns the block they stand in.

        Raises:
            NotRegistered, NoValidatorPermit, WeightsRefused (version key, an unknown UID, an empty vector),
            RateLimited (with the block from which it may be tried again).
        """
        ...

    async def weights_of(self, uid: Uid) -> dict[Uid, int]:
        """The weights that a verifier has on chain; empty if none."""
        ...

    async def aclose(self) -> None: ...
