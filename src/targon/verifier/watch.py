"""What the chain says of callers and of ourselves: a copy that is kept fresh beside the steps.

A step may take many blocks; who may call, what block it is and where we are announced must not wait for it.
How old the copy may be is bounded: past that, callers are refused rather than judged by what is no longer so.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from targon.chain import Chain, FollowedChain, Neuron
from targon.chain.followed import MAX_AGE_S
from targon.protocol.primitives import Hotkey
from targon.transport import Code, Refusal

logger = structlog.get_logger(__name__)


class ChainWatch(FollowedChain):
    """The chain as a verifier follows it."""

    def __init__(self, chain: Chain, hotkey: Hotkey, monotonic_s: Callable[[], float]) -> None:
        super().__init__(chain, monotonic_s, logger)
        self._hotkey = hotkey

    @property
    def me(self) -> Neuron | None:
        """What the chain says of us; None: that our hotkey has no UID."""
        return self.by_hotkey(self._hotkey)

    def admit(self, hotkey: Hotkey) -> None:
        """Let registered callers in. Decides at once, from the copy.

        Raises:
            Refusal: ``not_registered``, or ``chain_unavailable`` if the copy is too old to judge by.
        """
        if self.age_s > MAX_AGE_S:
            raise Refusal(
                Code.CHAIN_UNAVAILABLE,
                "we have not seen the chain for too long to know who you are",
                got=f"{self.age_s:.0f} s",
                expected=f"at most {MAX_AGE_S:.0f} s",
                retry_after_s=self.info.block_seconds,
            )
        if hotkey not in self.registered:
            raise Refusal(
                Code.NOT_REGISTERED,
                f"the caller's hotkey has no UID on subnet {self.info.netuid}; register it first",
                got=hotkey,
            )
