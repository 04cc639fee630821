"""A node that tells a block of the far future: nobody hears of it, the next node is asked, all goes on by itself."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import pytest
from structlog.testing import capture_logs

from targon.chain import ChainAhead, ChainUnavailable
from targon.chain.bittensor import BittensorChain, open_bittensor
from targon.chain.pace import STEADY_BLOCKS
from tests.chain.simulated_node import SimulatedNetwork
from tests.chain.simulated_world import IMPATIENT, NETUID, network

pytestmark = pytest.mark.anyio

FIRST, SECOND = "ws://node-1:9944", "ws://node-2:9944"
FAR = 1_000_000_000


async def opened(
    built: SimulatedNetwork, endpoints: str = FIRST, *, seen: tuple[int, float] | None = None
) -> BittensorChain:
    """By a clock that goes with the network's blocks."""
    return await open_bittensor(
        "",
        endpoints,
        NETUID,
        substrate=built.substrate,
        deadlines=IMPATIENT,
        elapsed_s=lambda: 12.0 * built.block,
        seen=seen,  # type: ignore[arg-type]  # a plain number
    )


async def test_a_far_block_is_told_to_nobody_and_all_goes_on_once_the_node_is_right_again() -> None:
    built = network()
    chain = await opened(built)
    heard = []
    with capture_logs() as logs, anyio.fail_after(5):
        async with aclosing(chain.blocks()) as blocks:
            heard.append(await anext(blocks))
            built.node(FIRST).ahead = FAR
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_right_again, built)
                heard.append(await anext(blocks))
    assert heard == [1, 4]
    with capture_logs() as quiet:
        assert await chain.block() == 4, "and it didn't stay in mind"
    assert quiet == []
    said = [entry["event"] for entry in logs if entry["log_level"] in ("error", "warning")]
    assert said == ["chain_ahead", "chain_believed_again"], "once each"
    await chain.aclose()


async def test_whoever_asks_is_told_what_is_wrong_and_what_to_do() -> None:
    built = network()
    chain = await opened(built)
    assert await chain.block() == 1
    built.node(FIRST).ahead = FAR
    with pytest.raises(
        ChainUnavailable, match=r"got block 1000000001 from ws://node-1:9944, expected 51 at most.*endpoint"
    ):
        await chain.block()
    with pytest.raises(ChainAhead):
        await chain.metagraph()
    await chain.aclose()


async def test_the_next_node_is_asked_where_there_is_one() -> None:
    built = network()
    chain = await opened(built, f"{FIRST},{SECOND}")
    assert await chain.block() == 1
    built.node(FIRST).ahead = FAR
    with pytest.raises(ChainAhead):
        await chain.block()
    assert await chain.block() == 1
    assert built.node(SECOND).connections == 1
    await chain.aclose()


async def test_nodes_that_all_say_the_same_are_believed_once_they_have_kept_step() -> None:
    built = network()
    chain = await opened(built, f"{FIRST},{SECOND}")
    await chain.block()
    built.node(FIRST).ahead = built.node(SECOND).ahead = 90_000
    for _ in range(STEADY_BLOCKS):
        with pytest.raises(ChainAhead):
            await chain.block()
        built.advance(1)
    assert await chain.block() == 90_000 + built.block
    await chain.aclose()


async def test_a_far_block_is_not_believed_at_the_start_either_where_one_was_seen_before() -> None:
    built = network()
    built.node(FIRST).ahead = FAR
    chain = await opened(built, seen=(1, 3_600.0))
    with pytest.raises(ChainAhead, match=r"expected \d+ at most"):
        await chain.block()
    await chain.aclose()


async def _right_again(built: SimulatedNetwork) -> None:
    await anyio.sleep(0.2)
    built.advance(3)
    built.node(FIRST).ahead = 0
