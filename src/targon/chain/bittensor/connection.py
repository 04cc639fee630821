"""One connection to the chain that outlives its endpoints.

Whoever reads hands over what to do with a connection; when the connection fails under it, a new one is made, to
the next endpoint in turn, and it is done again. So only reads may be handed to :meth:`Connection.ask`; what
changes the chain goes through :mod:`targon.chain.bittensor.submission`, which knows how not to do it twice.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

import anyio
import structlog
from bittensor import RpcSubstrate, Substrate
from bittensor.result import BittensorError, ConnectionNotReady, RpcConnectionError

from targon.chain.bittensor.deadlines import Deadlines
from targon.chain.bittensor.endpoints import shown
from targon.chain.errors import ChainUnavailable, WrongNetwork

T = TypeVar("T")

SubstrateFactory = Callable[[str], Substrate]
"""From an endpoint to the SDK's connection to it, not yet open."""

LOST = (RpcConnectionError, ConnectionNotReady, OSError, EOFError)
"""What the SDK raises when the connection failed, and not the question. A timeout is an ``OSError``."""

logger = structlog.get_logger(__name__)


def rpc_substrate(endpoint: str) -> Substrate:
    """The SDK's own connection, to this endpoint alone: which one comes next is decided here."""
    return RpcSubstrate(endpoint)


@dataclass(frozen=True, slots=True)
class _Link:
    endpoint: str
    substrate: Substrate


class Connection:
    """The only owner of connections to the chain. Many tasks may ask at once; they share one."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        substrate: SubstrateFactory,
        deadlines: Deadlines,
        jitter: Callable[[], float],
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._substrate = substrate
        self._deadlines = deadlines
        self._jitter = jitter
        self._link: _Link | None = None
        self._connecting = anyio.Lock()
        self._turn = 0
        self._genesis: str | None = None
        self._closed = False

    @property
    def endpoint(self) -> str:
        """The endpoint in use, or the next one, as it may be shown."""
        return shown(self._link.endpoint if self._link else self._endpoints[self._turn])

    @property
    def genesis(self) -> str | None:
        """Hash of block 0 with its 0x, once a connection was made. It never changes."""
        return self._genesis

    async def open(self) -> None:
        """Connect now, trying each endpoint once.

        Raises:
            ChainUnavailable: if none answers.
            WrongNetwork: if one does, but for another chain than before.
        """
        await self._linked()

    async def ask(self, read: Callable[[Substrate], Awaitable[T]]) -> T:
        """What a read returns, on this connection or the next ones.

        Raises:
            ChainUnavailable: if none answered in time.
            WrongNetwork: if the next endpoint is of another chain.
            BittensorError, ValueError: what the read itself raised.
        """
        reason = "none answered in time"
        with anyio.move_on_after(self._deadlines.read_s):
            for failures in itertools.count():
                try:
                    return await self.once(read)
                except ChainUnavailable as error:
                    reason = str(error)
                pause = min(self._deadlines.first_pause_s * 2**failures, self._deadlines.most_pause_s)
                await anyio.sleep(pause * (0.5 + self._jitter() / 2))
        raise ChainUnavailable(f"{reason}; gave up after {self._deadlines.read_s:g} s")

    async def once(self, work: Callable[[Substrate], Awaitable[T]], within_s: float | None = None) -> T:
        """What the work returns, tried on one connection only.

        Raises:
            ChainUnavailable: if the connection failed; whether the work was done cannot be told.
        """
        link = await self._linked()
        limit_s = self._deadlines.answer_s if within_s is None else within_s
        try:
            with anyio.fail_after(limit_s):
                return await work(link.substrate)
        except LOST as error:
            reason = f"no answer within {limit_s:g} s" if isinstance(error, TimeoutError) else str(error)
        except BittensorError as error:
            if self._link is link:
                raise
            reason = str(error)
        await self._drop(link, reason)
        raise ChainUnavailable(f"chain: the connection to {shown(link.endpoint)} failed ({reason[:300]})")

    async def heads(self) -> AsyncGenerator[int, None]:
        """Block numbers as the endpoint announces them, until it falls silent or the connection fails."""
        link = await self._linked()
        try:
            async with aclosing(link.substrate.blocks()) as blocks:  # type: ignore[type-var]
                while True:
                    with anyio.fail_after(self._deadlines.silence_s):
                        block = await anext(blocks)
                    yield int(block["header"]["number"])
        except StopAsyncIteration:
            return
        except (*LOST, BittensorError, LookupError, TypeError, ValueError) as error:
            logger.info("chain_subscription_ended", endpoint=shown(link.endpoint), error=str(error)[:300])

    async def turn(self, reason: str) -> None:
        """Go on with the next endpoint, if there is another."""
        if self._link is not None and len(self._endpoints) > 1:
            await self._drop(self._link, reason)

    async def aclose(self) -> None:
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            await _close(link.substrate, self._deadlines.close_s)

    async def _linked(self) -> _Link:
        async with self._connecting:
            if self._closed:
                raise ChainUnavailable("chain: it was closed; open it anew")
            if self._link is None:
                self._link = await self._connected()
                logger.info("chain_connected", endpoint=shown(self._link.endpoint))
            return self._link

    async def _connected(self) -> _Link:
        """A new connection to the first endpoint, in turn, that answers for the same chain as before."""
        failures: list[str] = []
        strange = ""
        for _ in self._endpoints:
            endpoint = self._endpoints[self._turn]
            substrate = self._substrate(endpoint)
            link = None
            try:
                with anyio.fail_after(self._deadlines.connect_s):
                    await substrate.connect()
                    genesis = await substrate.block_hash(0)
                if self._genesis in (None, genesis):
                    link = _Link(endpoint, substrate)
                    self._genesis = genesis
                    return link
                strange = (
                    f"chain: got genesis {genesis} at {shown(endpoint)}, expected {self._genesis}, that of the "
                    "chain seen before; give endpoints of one network to --subtensor.chain_endpoint"
                )
            except (*LOST, BittensorError) as error:
                failures.append(f"{shown(endpoint)}: {str(error)[:200] or type(error).__name__}")
            finally:
                if link is None:
                    await _close(substrate, self._deadlines.close_s)
            self._turn = (self._turn + 1) % len(self._endpoints)
        if strange:
            raise WrongNetwork(strange)
        raise ChainUnavailable(
            f"chain: nobody answers ({'; '.join(failures)}), expected a Subtensor node; start one there, or name "
            "another with --subtensor.chain_endpoint or --subtensor.network"
        )

    async def _drop(self, link: _Link, reason: str) -> None:
        if self._link is not link:
            return
        logger.warning("chain_connection_lost", endpoint=shown(link.endpoint), error=reason[:300])
        self._link = None
        self._turn = (self._turn + 1) % len(self._endpoints)
        await _close(link.substrate, self._deadlines.close_s)


async def _close(substrate: Substrate, within_s: float) -> None:
    with anyio.move_on_after(within_s, shield=True), suppress(*LOST, BittensorError):
        await substrate.close()
