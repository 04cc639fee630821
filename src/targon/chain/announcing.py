"""Announcing an axon: put on chain at the start, and again whenever the chain says otherwise."""

from __future__ import annotations

import ipaddress
from typing import Final

import anyio
import structlog

from targon.chain.errors import AxonRefused, ChainError, NotAnnounced, NotRegistered, RateLimited
from targon.chain.port import Axon, Chain, Neuron
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block

TRIES: Final = 5
TIMEOUT_S: Final = 30.0
"""How long the chain has to take an announcement."""
FIRST_PAUSE_S: Final = 0.4
"""Pause after the first try; each further one is twice as long."""
REANNOUNCE_BLOCKS: Final = 50
"""How many blocks lie between two announcements at least: chains limit how often an axon may change."""

logger = structlog.get_logger(__name__)


class Announcer:
    """Keeps one axon on the chain."""

    def __init__(self, chain: Chain, signer: Signer, axon: Axon) -> None:
        self._chain = chain
        self._signer = signer
        self._axon = axon
        self._not_before = Block(0)
        self._announcing = False

    @property
    def axon(self) -> Axon:
        """Where we are announced, or want to be."""
        return self._axon

    async def announce(self, block: Block) -> bool:
        """Put the axon on chain, within a few tries.

        Args:
            block: the current block.

        Returns:
            False if the chain limits how often it may change: :meth:`look` announces it when it may.

        Raises:
            NotRegistered: if the signer's hotkey has no UID.
            AxonRefused: if the chain does not take the address.
            NotAnnounced: if it could not be done within the tries.
        """
        self._not_before = Block(block + REANNOUNCE_BLOCKS)
        for attempt in range(TRIES):
            try:
                with anyio.fail_after(TIMEOUT_S):
                    await self._chain.serve_axon(self._signer, self._axon)
            except (NotRegistered, AxonRefused):
                raise
            except RateLimited as error:
                self._not_before = error.allowed_at
                logger.warning(
                    "announcing_rate_limited",
                    axon=str(self._axon),
                    again_at=error.allowed_at,
                    error=str(error),
                )
                return False
            except (ChainError, TimeoutError) as error:
                why = str(error) or f"no answer within {TIMEOUT_S:g} s"
                if attempt == TRIES - 1:
                    raise NotAnnounced(
                        f"the chain did not take our axon {self._axon} in {TRIES} tries ({why})"
                    ) from error
                logger.warning("announcing_failed_trying_again", axon=str(self._axon), error=why)
                await anyio.sleep(FIRST_PAUSE_S * 2**attempt)
            else:
                return True
        raise AssertionError("unreachable: the last try returns or raises")

    async def look(self, neuron: Neuron | None, block: Block) -> None:
        """Announce again where it is needed and may be. What the chain refuses is logged, not raised.

        Args:
            neuron: what the chain says of us now; None: that our hotkey has no UID.
            block: the current block.
        """
        if neuron is None:
            logger.error("our hotkey lost its UID; register it again", hotkey=self._signer.ss58_address)
            return
        if neuron.axon == self._axon or block < self._not_before or self._announcing:
            return
        logger.warning("the chain has another axon of ours; announcing again", axon=str(self._axon))
        self._announcing = True
        try:
            await self.announce(block)
        except ChainError as error:
            logger.error("announcing_failed", error=str(error), again_at=self._not_before)
        finally:
            self._announcing = False


def host_to_announce(host: str, external_host: str | None) -> str:
    """The address that goes on the chain, of one that is listened at and one that may be given instead.

    Raises:
        AxonRefused: if it is no address that others could call.
    """
    announced = external_host or host
    try:
        address = ipaddress.ip_address(announced)
    except ValueError as error:
        raise AxonRefused(
            f"the address to announce: got {announced[:80]!r}, expected an IP address; set --axon.external_ip"
        ) from error
    if address.is_unspecified:
        raise AxonRefused(
            f"{announced} listens everywhere, but nobody can call it: say which address to announce with "
            "--axon.external_ip"
        )
    return announced
