"""When a subnet's epochs begin, and so when a commit may be revealed.

Runtimes differ. The older rule reads epochs off the block number: epoch ``(block + netuid + 1) // (tempo + 1)``.
The newer one counts them as they are run (``SubnetEpochIndex``), one every ``tempo`` blocks after the last, or
earlier where the subnet's owner asks for it; what it says of coming epochs holds as long as nobody does.

Source: opentensor/subtensor, ``pallets/subtensor/src/subnets/weights.rs`` (``get_reveal_blocks``) at spec 293,
and ``coinbase/run_coinbase.rs`` (``should_run_epoch``) at commit 14bc6f9f.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from targon.protocol.primitives import Block


class Epochs(Protocol):
    """The epochs of one subnet, as they stand at one block."""

    @property
    def spacing(self) -> int:
        """Blocks from one epoch to the next."""
        ...

    def current(self) -> int:
        """The number of the epoch at that block."""
        ...

    def of_commit(self, told: int) -> int:
        """The epoch of a commit, by the second field that the chain keeps of it."""
        ...

    def start(self, epoch: int) -> Block:
        """The first block of an epoch, as far as can be told."""
        ...


@dataclass(frozen=True, slots=True)
class EpochsByNumber:
    """The older rule."""

    netuid: int
    tempo: int
    block: Block

    @property
    def spacing(self) -> int:
        return self.tempo + 1

    def current(self) -> int:
        return self.of_commit(self.block)

    def of_commit(self, told: int) -> int:
        """A commit is kept with its block."""
        return (told + self.netuid + 1) // self.spacing

    def start(self, epoch: int) -> Block:
        return Block(max(0, epoch * self.spacing - (self.netuid + 1)))


@dataclass(frozen=True, slots=True)
class EpochsCounted:
    """The newer rule."""

    index: int
    """How many epochs were run."""
    last: Block
    """The block of the last one."""
    pending: Block
    """The block for which the owner asked for one; 0: none."""
    tempo: int

    @property
    def spacing(self) -> int:
        return self.tempo

    def current(self) -> int:
        return self.index

    def of_commit(self, told: int) -> int:
        """A commit is kept with its epoch."""
        return told

    def start(self, epoch: int) -> Block:
        ahead = epoch - self.index
        if ahead <= 0:
            return Block(max(0, self.last + ahead * self.tempo))
        following = self.last + self.tempo
        if self.pending:
            following = min(following, self.pending)
        return Block(following + (ahead - 1) * self.tempo)
