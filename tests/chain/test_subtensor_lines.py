"""The Bittensor adapter and a real node, with lines between them that break. Collected where a node is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import ChainUnavailable
from targon.chain.bittensor import BittensorChain, Deadlines, open_bittensor
from targon.protocol.primitives import Digest, Hotkey
from tests.chain.cutting_proxy import CuttingProxy, cutting_proxy
from tests.chain.subtensor_world import SubtensorWorld
from tests.chain.worlds import VERSION_KEY

pytestmark = pytest.mark.anyio

SIGNER = Keypair.create_from_uri("//validator")
HOTKEY = Hotkey(SIGNER.ss58_address)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SubtensorWorld]:
    built = await SubtensorWorld.create(tmp_path)
    yield built
    await built.aclose()


async def opened(
    node: SubtensorWorld, *proxies: CuttingProxy, deadlines: Deadlines | None = None
) -> BittensorChain:
    return await open_bittensor(
        "", ",".join(proxy.url for proxy in proxies), node.netuid, deadlines=deadlines
    )


async def nonce(node: SubtensorWorld) -> int:
    return int((await node.substrate.query("System", "Account", [HOTKEY]))["nonce"])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_line_that_breaks_around_a_call_costs_no_call_and_doubles_none(
    node: SubtensorWorld, when: str
) -> None:
    uid = await node.register(SIGNER)
    await node.advance(3)
    before = await nonce(node)
    async with cutting_proxy(node.url) as proxy:
        chain = await opened(node, proxy)
        proxy.cuts["author_submitAndWatchExtrinsic"] = when
        await chain.set_weights(SIGNER, {uid: 65_535}, VERSION_KEY)
        assert proxy.connections == 2
        await chain.aclose()
    assert await node.chain.weights_of(uid) == {uid: 65_535}
    assert await nonce(node) == before + 1


async def test_a_line_that_breaks_in_a_read_is_not_noticed(node: SubtensorWorld) -> None:
    async with cutting_proxy(node.url) as proxy:
        chain = await opened(node, proxy)
        for method in ("state_call", "chain_getHeader"):
            proxy.cuts[method] = "after"
            assert (await chain.metagraph()).netuid == node.netuid
            assert await chain.block() >= 1
        assert not proxy.cuts
        await chain.aclose()


async def test_a_node_that_goes_deaf_is_left_for_the_next_one(node: SubtensorWorld) -> None:
    await node.register(SIGNER)
    async with cutting_proxy(node.url) as first, cutting_proxy(node.url) as second:
        chain = await opened(node, first, second, deadlines=replace(Deadlines(), answer_s=3.0))
        first.deaf = True
        block = await chain.anchor(SIGNER, Digest("ab" * 32))
        assert second.connections == 1
        await chain.aclose()
    anchor = await node.chain.anchor_of(HOTKEY)
    assert anchor is not None
    assert (anchor.digest, anchor.block) == ("ab" * 32, block)


async def test_a_node_that_goes_away_is_left_for_the_next_one_and_blocks_go_on(node: SubtensorWorld) -> None:
    async with cutting_proxy(node.url) as second:
        async with cutting_proxy(node.url) as first:
            chain = await opened(node, first, second)
            with anyio.fail_after(60):
                async with aclosing(chain.blocks()) as blocks:
                    heard = [await anext(blocks)]
                    await node.advance(1)
                    heard.append(await anext(blocks))
                    first.cut_all()
                    first.deaf = True
                    first.cuts = {}
                    await node.advance(2)
                    heard.append(await anext(blocks))
            assert heard == sorted(set(heard))
        assert await chain.block() >= heard[-1]
        assert second.connections >= 1
        await chain.aclose()


async def test_a_network_whose_nodes_are_all_away_is_said_to_be(node: SubtensorWorld) -> None:
    async with cutting_proxy(node.url) as proxy:
        chain = await opened(node, proxy, deadlines=replace(Deadlines(), read_s=3.0))
    with pytest.raises(ChainUnavailable, match=r"nobody answers.*gave up after 3 s"):
        await chain.block()
    await chain.aclose()
