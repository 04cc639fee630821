"""How the Bittensor adapter stays connected: nodes that fall, hang, lag or lie about which network they are of."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import anyio
import pytest

from targon.chain import ChainUnavailable, UnknownBlock, WrongNetwork
from targon.chain.bittensor import BittensorChain, open_bittensor
from tests.chain.simulated_node import SimulatedNetwork, factory
from tests.chain.simulated_world import IMPATIENT, NETUID, network

pytestmark = pytest.mark.anyio

FIRST, SECOND = "ws://node-1:9944", "ws://node-2:9944"


async def opened(built: SimulatedNetwork, *, netuid: int = NETUID) -> BittensorChain:
    return await open_bittensor(
        "", f"{FIRST},{SECOND}", netuid, substrate=built.substrate, deadlines=IMPATIENT, jitter=lambda: 1.0
    )


async def opened_over(first: SimulatedNetwork, second: SimulatedNetwork) -> BittensorChain:
    """Over two nodes that tell of a network each."""
    return await open_bittensor(
        "",
        f"{FIRST},{SECOND}",
        NETUID,
        substrate=factory((first, FIRST), (second, SECOND)),
        deadlines=IMPATIENT,
    )


@pytest.mark.parametrize("fault", ["down", "silent"])
async def test_the_next_node_is_asked_where_one_fails(fault: str) -> None:
    built = network()
    chain = await opened(built)
    setattr(built.node(FIRST), fault, True)
    assert await chain.block() == built.block
    assert built.node(SECOND).connections == 1
    await chain.aclose()


async def test_the_first_node_need_not_be_up_at_the_start() -> None:
    built = network()
    built.node(FIRST).down = True
    chain = await opened(built)
    assert (await chain.info()).netuid == NETUID
    await chain.aclose()


async def test_many_who_ask_share_one_connection_and_its_successor() -> None:
    built = network()
    chain = await opened(built)
    built.node(FIRST).down = True
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(chain.metagraph)
    assert (built.node(FIRST).connections, built.node(SECOND).connections) == (1, 1)
    await chain.aclose()


async def test_a_network_that_is_away_for_a_while_is_waited_for() -> None:
    built = network()
    chain = await opened(built)
    built.node(FIRST).down = built.node(SECOND).down = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(chain.metagraph)
        await anyio.sleep(0.2)
        built.node(SECOND).down = False
    await chain.aclose()


async def test_a_network_that_stays_away_is_said_to_be() -> None:
    built = network()
    chain = await opened(built)
    built.node(FIRST).down = built.node(SECOND).down = True
    with pytest.raises(
        ChainUnavailable, match=r"nobody answers \(ws://node-.*; ws://node-.*gave up after 1 s"
    ):
        await chain.block()
    await chain.aclose()


async def test_a_node_of_another_network_is_not_believed_after_a_fail_over() -> None:
    ours, other = network(), network(name="other")
    chain = await opened_over(ours, other)
    ours.node(FIRST).down = True
    with pytest.raises(WrongNetwork, match=rf"{other.hash_of(0)} at {SECOND}, expected {ours.hash_of(0)}"):
        await chain.block()
    ours.node(FIRST).down = False
    assert await chain.block() == ours.block
    await chain.aclose()


async def test_a_network_without_the_subnet_is_named_with_the_netuid() -> None:
    with pytest.raises(WrongNetwork, match=r"got netuid 77.*--netuid"):
        await opened(network(), netuid=77)


async def test_a_node_that_is_no_subtensor_is_named() -> None:
    built = network()

    class OtherNode:
        def __init__(self, endpoint: str) -> None:
            self._node = built.substrate(endpoint)

        def __getattr__(self, name: str) -> object:
            return getattr(self._node, name)

        async def runtime_call(self, *_: object) -> object:
            raise ValueError("runtime API SubnetInfoRuntimeApi not found")

    with pytest.raises(WrongNetwork, match=r"node-1:9944 that doesn't know of subnets"):
        await open_bittensor("", FIRST, NETUID, substrate=OtherNode, deadlines=IMPATIENT)


async def test_an_answer_that_cannot_be_used_is_told_with_its_node() -> None:
    built = network()
    chain = await opened(built)
    del built.subnets[NETUID]
    with pytest.raises(WrongNetwork, match="got netuid 4"):
        await chain.metagraph()
    built.subnets.update(network().subnets)
    built.subnets[NETUID].metagraph = lambda block: {"block": block, "hotkeys": ["x"]}  # type: ignore[method-assign]
    with pytest.raises(ChainUnavailable, match=r"ws://node-1:9944 that cannot be used"):
        await chain.metagraph()
    await chain.aclose()


async def test_blocks_are_heard_through_a_fail_over_and_a_gap_shows_as_a_jump() -> None:
    built = network()
    chain = await opened(built)
    heard = []
    with anyio.fail_after(5):
        async with aclosing(chain.blocks()) as blocks:
            async for block in blocks:
                heard.append(block)
                if len(heard) == 3:
                    break
                built.node(FIRST).down = True
                built.advance(5)
    assert heard[1] >= heard[0] + 5
    assert heard[2] >= heard[1] + 5
    await chain.aclose()


async def test_blocks_are_looked_for_where_nobody_announces_them() -> None:
    built = network()
    built.node(FIRST).announces = built.node(SECOND).announces = False
    chain = await opened(built)
    heard = []
    with anyio.fail_after(5):
        async with aclosing(chain.blocks()) as blocks:
            async for block in blocks:
                heard.append(block)
                built.advance(2)
                if len(heard) == 4:
                    break
    assert heard == [1, 3, 5, 7]
    await chain.aclose()


async def test_a_quiet_chain_is_listened_to_for_as_long_as_it_takes() -> None:
    built = network()
    chain = await open_bittensor(
        "", FIRST, NETUID, substrate=built.substrate, deadlines=replace(IMPATIENT, silence_s=0.05)
    )
    with anyio.fail_after(5):
        async with aclosing(chain.blocks()) as blocks:
            assert await anext(blocks) == 1
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_later, built)
                assert await anext(blocks) == 4
    await chain.aclose()


async def test_a_network_that_is_away_ends_no_listening() -> None:
    built = network()
    chain = await opened(built)
    with anyio.fail_after(10):
        async with aclosing(chain.blocks()) as blocks:
            assert await anext(blocks) == 1
            built.node(FIRST).down = built.node(SECOND).down = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_back, built)
                assert await anext(blocks) == 4
    await chain.aclose()


async def test_the_block_does_not_go_back_where_the_next_node_lags() -> None:
    ours, lagging = network(), network()
    ours.advance(10)
    chain = await opened_over(ours, lagging)
    before = await chain.block()
    ours.node(FIRST).down = True
    assert await chain.block() == before
    with pytest.raises(UnknownBlock):
        await chain.block_hash(before)
    await chain.aclose()


async def test_what_was_closed_says_so() -> None:
    chain = await opened(network())
    await chain.aclose()
    with pytest.raises(ChainUnavailable, match="it was closed"):
        await chain.block()


async def _later(built: SimulatedNetwork) -> None:
    await anyio.sleep(0.3)
    built.advance(3)


async def _back(built: SimulatedNetwork) -> None:
    await anyio.sleep(1.5)
    built.advance(3)
    built.node(SECOND).down = False


async def test_a_connection_that_does_not_close_is_left() -> None:
    built = network()
    chain = await opened(built)
    built.node(FIRST).closes = False
    with anyio.fail_after(2):
        await chain.aclose()
