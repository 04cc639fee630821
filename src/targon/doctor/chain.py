"""The chain: it answers, soon; it is the right one; its head moves; and our clock agrees with it.

No server of a third party is asked for the time: the chain is the one clock that all neurons share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import anyio

from targon.chain import PUBLIC_NETWORKS, Chain, ChainError, EmbeddedChain, SubnetInfo
from targon.doctor.findings import Result, bad, good, note
from targon.protocol.primitives import Block

SLOW_S = 2.0
"""An answer that takes longer is worth a note: a step asks several times, and a block lasts 12 s."""
PATIENCE_BLOCKS = 2.5
"""For so many block times the next block is waited for: slots without a block happen, two in a row hardly."""
ALLOWED_S = 2.0
"""Seconds that neurons' clocks may differ: a signed request from further in the future is refused (btauth/1)."""

Clock = Callable[[], float]
"""Seconds."""


@runtime_checkable
class TellsTime(Protocol):
    """A chain that says when its blocks were made."""

    async def block_time(self, block: Block) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """A chain that answers."""

    chain: Chain
    info: SubnetInfo

    @property
    def embedded(self) -> bool:
        return isinstance(self.chain, EmbeddedChain)


@dataclass(frozen=True, slots=True)
class Watched:
    """A block that was seen, and when."""

    block: Block
    new: bool
    """Whether it came while we watched; else it is the head that stood all the while."""
    seen_s: float
    """Our clock then."""
    made_s: float | None
    """The chain's; None: it doesn't say."""


async def check_chain(open_chain: Callable[[], Awaitable[Chain]], network: str, monotonic_s: Clock) -> Result:
    """Hands on a :class:`Link`.

    Args:
        network: the name of the network that it should be; empty: any.
    """
    try:
        chain = await open_chain()
        began_s = monotonic_s()
        info = await chain.info()
        block = await chain.block()
    except ChainError as error:
        return bad(str(error), "correct --subtensor.chain_endpoint, --subtensor.network or --netuid")
    took_s = (monotonic_s() - began_s) / 2
    expected = PUBLIC_NETWORKS.get(network, info.genesis)
    if info.genesis != expected:
        return bad(
            f"it is another network: got genesis {info.genesis[:12]}…, expected {expected[:12]}…, that of {network}",
            f"name a node of {network} with --subtensor.chain_endpoint, or the network that you mean with "
            "--subtensor.network",
        )
    found = f"block {block}, subnet {info.netuid}, genesis {info.genesis[:12]}…; an answer takes {took_s * 1e3:.0f} ms"
    link = Link(chain, info)
    if took_s > SLOW_S:
        return note(found, "a node nearer to this machine, or one of your own, answers sooner", value=link)
    return good(found, value=link)


async def check_head(link: Link, now_s: Clock) -> Result:
    """Wait for the next block. Hands on what was :class:`Watched`."""
    patience_s = PATIENCE_BLOCKS * link.info.block_seconds
    first = latest = await link.chain.block()
    with anyio.move_on_after(patience_s):
        async with aclosing(link.chain.blocks()) as blocks:
            async for latest in blocks:
                if latest > first:
                    break
    seen_s, new = now_s(), latest > first
    made_s = await link.chain.block_time(latest) if isinstance(link.chain, TellsTime) else None
    watched = Watched(latest, new, seen_s, made_s)
    if new:
        return good(f"block {latest} came while this watched", value=watched)
    age = "" if made_s is None or made_s > seen_s else f", which is {seen_s - made_s:.0f} s old"
    return bad(
        f"it has stood at block {latest}{age}: got no new block in {patience_s:g} s, expected one every "
        f"{link.info.block_seconds:g} s",
        "name another node with --subtensor.chain_endpoint, or wait until this one has caught up; if 'clock' is bad, "
        "correct that first",
        value=watched,
    )


async def check_clock(link: Link, watched: Watched) -> Result:
    """Our clock against the time of a block that we saw come."""
    synchronise = "sudo timedatectl set-ntp true, or run chrony; `timedatectl` shows the state"
    if watched.made_s is None:
        return note("not checked: this chain doesn't say when its blocks were made", synchronise)
    difference_s = watched.seen_s - watched.made_s
    late_s = ALLOWED_S + link.info.block_seconds
    if difference_s < -ALLOWED_S:
        return bad(
            f"it is {-difference_s:.0f} s behind the chain's, expected {ALLOWED_S:g} s at most: requests would be "
            "refused as stale, ours and those to us",
            synchronise,
        )
    if not watched.new:
        return note("not checked: that needs a new block, and none came", synchronise)
    if difference_s > late_s:
        return bad(
            f"it is {difference_s:.0f} s ahead of the chain's, expected {late_s:g} s at most (a block may be so long "
            "on its way): requests would be refused as stale, ours and those to us",
            synchronise,
        )
    if link.embedded:
        return note(
            "not checked: the embedded chain reads this machine's own clock, so the two always agree",
            synchronise,
        )
    return good(f"a new block was {difference_s:.1f} s old by it")
