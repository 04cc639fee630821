"""What the chain says of blocks and of who may ask: a copy that is kept fresh beside the requests.

No request waits for the chain. How old the copy may be is bounded: past that, callers are refused rather than judged by
what is no longer so.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from targon.chain import Chain, FollowedChain, Metagraph
from targon.chain.followed import MAX_AGE_S
from targon.protocol.primitives import Hotkey
from targon.transport import Code, Refusal

logger = structlog.get_logger("targon.oracle")


class ChainView(FollowedChain):
    """The chain as an oracle follows it."""

    def __init__(self, chain: Chain, monotonic_s: Callable[[], float]) -> None:
        super().__init__(chain, monotonic_s, logger)
        self._permitted: frozenset[Hotkey] = frozenset()

    @property
    def permitted(self) -> frozenset[Hotkey]:
        """Who has a validator permit."""
        return self._permitted

    @property
    def trouble(self) -> str | None:
        """Why callers can't be judged now, in words; None if they can."""
        return f"the chain has not been seen for {self.age_s:.0f} s" if self.age_s > MAX_AGE_S else None

    def admit(self, hotkey: Hotkey) -> None:
        """Let callers in that have a validator permit. Decides at once, from the copy.

        Raises:
            Refusal: ``not_registered``, ``no_validator_permit``, or ``chain_unavailable`` if the copy is too old.
        """
        if self.trouble is not None:
            raise Refusal(
                Code.CHAIN_UNAVAILABLE,
                "we have not seen the chain for too long to know who you are",
                retry_after_s=self.info.block_seconds,
            )
        if hotkey not in self._permitted:
            subnet = self.info.netuid
            if hotkey not in self.registered:
                raise Refusal(
                    Code.NOT_REGISTERED,
                    f"the caller's hotkey has no UID on subnet {subnet}; register it first",
                    got=hotkey,
                )
            raise Refusal(
                Code.NO_VALIDATOR_PERMIT,
                f"private inputs are for hotkeys with a validator permit on subnet {subnet}",
                got=hotkey,
            )

    def _took(self, metagraph: Metagraph) -> None:
        self._permitted = frozenset(neuron.hotkey for neuron in metagraph.neurons if neuron.validator_permit)
