"""The errors of the chain room.

    ChainError
    ├── ChainUnavailable      the chain cannot be reached or read
    ├── UnknownBlock          a block that lies in the future
    ├── NotRegistered         a hotkey without a UID on this subnet
    ├── NoValidatorPermit     a neuron that may not set weights
    ├── WeightsRefused        weights that the chain does not take
    └── RateLimited           too soon; says from which block on
"""

from __future__ import annotations

from targon.protocol.primitives import Block, Hotkey


class ChainError(Exception):
    """Anything that the chain refuses or fails to do."""


class ChainUnavailable(ChainError):
    """The chain cannot be reached or read."""


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


class RateLimited(ChainError):
    """Too soon.

    Attributes:
        allowed_at: the first block in which it may be tried again.
    """

    def __init__(self, allowed_at: Block, message: str) -> None:
        self.allowed_at = allowed_at
        super().__init__(message)
