"""The errors of the chain room.

ChainError
├── ChainUnavailable      the chain cannot be reached or read
│   └── ChainAhead        a node tells a block that cannot be there yet
├── UnknownBlock          a block that lies in the future
├── NotRegistered         a hotkey without a UID on this subnet
├── NoValidatorPermit     a neuron that may not set weights
├── InsufficientStake     a neuron with too little stake to set weights
├── WeightsRefused        weights that the chain does not take
│   ├── CommitRevealRequired  they have to be committed to first
│   └── CommitRevealRefused   a commit or reveal that cannot be
├── AxonRefused           an address that the chain does not take
├── NotAnnounced          an axon that the chain did not take within a few tries
├── RateLimited           too soon; says from which block on
├── ChainExists           a chain is to be created where a file lies already
├── UnsupportedEndpoint   an endpoint that no adapter of this version serves
├── WrongNetwork          an endpoint that leads to another chain, or to one without this subnet
└── CallRefused           a signed call that is not its hotkey's own, or not for this chain
    └── StaleNonce        a call that was taken already, or out of turn
"""

from __future__ import annotations

from targon.protocol.primitives import Block, Hotkey


class ChainError(Exception):
    """Anything that the chain refuses or fails to do."""


class ChainUnavailable(ChainError):
    """The chain cannot be reached or read."""


class ChainAhead(ChainUnavailable):
    """A node tells a block as the newest that the chain can't have reached by now.

    Attributes:
        told: the block.
        highest: that the chain can be at, by the clock.
    """

    def __init__(self, told: Block, highest: Block, endpoint: str, minutes: float) -> None:
        self.told = told
        self.highest = highest
        super().__init__(
            f"chain: got block {told} from {endpoint}, expected {highest} at most, by the clock and what was seen "
            f"before; it is not believed unless it keeps step with the clock for {minutes:g} minutes. Look at that "
            "node, or name another with --subtensor.chain_endpoint"
        )


class UnknownBlock(ChainError):
    """A block that lies in the future."""

    def __init__(self, block: Block, current: Block) -> None:
        self.block = block
        self.current = current
        super().__init__(f"block {block} is not there yet: the chain is at block {current}")


class NotRegistered(ChainError):
    """A hotkey without a UID on this subnet."""

    def __init__(self, hotkey: Hotkey, netuid: int, how: str) -> None:
        self.hotkey = hotkey
        self.netuid = netuid
        super().__init__(f"hotkey {hotkey} is not registered on subnet {netuid}; register it with: {how}")


class NoValidatorPermit(ChainError):
    """A neuron that may not set weights."""


class WeightsRefused(ChainError):
    """Weights that the chain does not take: an outdated version key, an unknown UID, an empty vector."""


class CommitRevealRequired(WeightsRefused):
    """Weights set outright where they have to be committed to first, and revealed later."""


class CommitRevealRefused(WeightsRefused):
    """A commit where there are none, or a reveal of what was not committed to or has expired."""


class InsufficientStake(ChainError):
    """A neuron with too little stake to set weights."""


class AxonRefused(ChainError):
    """An address that the chain does not take: not an IP address, or no port."""


class NotAnnounced(ChainError):
    """An axon that the chain did not take within a few tries."""


class RateLimited(ChainError):
    """Too soon.

    Attributes:
        allowed_at: the first block in which it may be tried again.
    """

    def __init__(self, allowed_at: Block, message: str) -> None:
        self.allowed_at = allowed_at
        super().__init__(message)


class ChainExists(ChainError):
    """A chain is to be created where a file lies already."""


class UnsupportedEndpoint(ChainError):
    """An endpoint that no adapter of this version serves."""


class WrongNetwork(ChainError):
    """An endpoint that leads to another chain than it should, or to one that has no such subnet."""


class CallRefused(ChainError):
    """A signed call that is not its hotkey's own, or not for this chain."""


class StaleNonce(CallRefused):
    """A call that was taken already, or out of turn."""

    def __init__(self, got: int, expected: int) -> None:
        self.got = got
        self.expected = expected
        super().__init__(f"call: got nonce {got}, expected {expected}; read the nonce again and sign anew")
