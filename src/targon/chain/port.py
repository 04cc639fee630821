"""The chain port: who is registered, where, with what stake; blocks; weights."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
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
    """Least number of blocks between two settings of weights by one neuron; with commit-reveal, between two
    commits."""
    commit_reveal: bool = False
    """Whether weights are committed to first and revealed later; they cannot be set outright then."""
    reveal_epochs: int = 1
    """How many epochs after its commit's own a reveal is taken; in no other."""


@dataclass(frozen=True, slots=True)
class WeightsCommit:
    """Weights that a neuron committed to and has not revealed."""

    digest: Digest
    """What :meth:`Chain.commit_digest` gives for them."""
    block: Block
    """The block that the commit stands in."""
    reveal_from: Block
    """The first block in which it may be revealed, as far as can be told now: the chain's epochs may move."""
    reveal_until: Block
    """The first block in which it may not be revealed any more."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A digest that a neuron put on chain."""

    digest: Digest
    block: Block
    """The block that it stands in."""


class Chain(Protocol):
    """What a neuron asks of the chain. Errors are those of :mod:`targon.chain.errors`.

    Every method raises ``ChainUnavailable`` where the chain cannot be asked. A call that changes something is
    over when it stands in a block. Where its fate cannot be told (the connection broke after it was sent), the
    adapter finds out from the chain before it sends anything again: nothing is done twice.
    """

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

    def blocks(self) -> AsyncGenerator[Block, None]:
        """The current block, then each new one as it comes. Never ends by itself.

        Numbers only rise. A gap means blocks that passed unseen: while the caller was busy, or while the chain
        could not be heard, which is waited out.
        """
        ...

    async def metagraph(self) -> Metagraph: ...

    async def require_uid(self, hotkey: Hotkey) -> Uid:
        """The UID that a hotkey holds.

        Raises:
            NotRegistered: if it holds none; its text has the command that registers it.
        """
        ...

    async def serve_axon(self, signer: Signer, axon: Axon) -> None:
        """Announce where a neuron serves; where it is announced already, nothing is sent.

        Raises:
            NotRegistered: if the signer's hotkey has no UID.
            AxonRefused: if the chain does not take the address.
            RateLimited: if it was announced elsewhere too short a time ago.
        """
        ...

    async def set_weights(self, signer: Signer, weights: Mapping[Uid, int], version_key: int) -> Block:
        """Set a verifier's weights (u16 per UID, zeros left out); returns the block they stand in.

        Raises:
            NotRegistered, NoValidatorPermit, InsufficientStake, WeightsRefused (version key, an unknown UID, an
            empty vector), CommitRevealRequired (where weights have to be committed to first), RateLimited (with
            the block from which it may be tried again).
        """
        ...

    def commit_digest(
        self, hotkey: Hotkey, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> Digest:
        """What stands on chain when a hotkey has committed to these weights. ``salt``: 32 bytes."""
        ...

    async def commit_weights(
        self, signer: Signer, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> WeightsCommit:
        """Commit to weights that are revealed later, with the same arguments.

        Raises:
            As :meth:`set_weights`; ``CommitRevealRefused`` where the subnet doesn't use commit-reveal, or too
            many commits are unrevealed.
        """
        ...

    async def reveal_weights(
        self, signer: Signer, weights: Mapping[Uid, int], version_key: int, salt: bytes
    ) -> Block:
        """Reveal weights that were committed to; returns the block they stand in. Older commits are forgotten.

        Raises:
            As :meth:`set_weights`; ``CommitRevealRefused`` where there is no such commit (any more);
            ``RateLimited`` where it is too early, with the first block that isn't.
        """
        ...

    async def weights_commits(self, hotkey: Hotkey) -> tuple[WeightsCommit, ...]:
        """A hotkey's commits that may still be revealed, oldest first."""
        ...

    async def anchor(self, signer: Signer, digest: Digest) -> Block:
        """Put a digest on chain in the signer's name, in place of the one before; returns the block it stands in.

        Raises:
            NotRegistered: if the signer's hotkey has no UID.
            RateLimited: if the chain takes no more from this hotkey for now.
        """
        ...

    async def anchor_of(self, hotkey: Hotkey) -> Anchor | None:
        """The digest that a hotkey put on chain last; None if it never did."""
        ...

    async def weights_of(self, uid: Uid) -> dict[Uid, int]:
        """The weights that a verifier has on chain; empty if none."""
        ...

    async def aclose(self) -> None: ...
