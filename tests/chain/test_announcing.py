"""Announcing, against a real chain file whose calls fail as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import (
    Announcer,
    Axon,
    AxonRefused,
    ChainUnavailable,
    EmbeddedChain,
    Neuron,
    NotAnnounced,
    NotRegistered,
    RateLimited,
    host_to_announce,
)
from targon.chain.announcing import REANNOUNCE_BLOCKS, TRIES
from targon.protocol.primitives import Block, Hotkey

pytestmark = pytest.mark.anyio

ALICE = Keypair.create_from_uri("//Alice")
AXON, OTHER = Axon("192.0.2.7", 8092), Axon("192.0.2.8", 8092)


class Line:
    """The way to a chain: raises what it is told to, and counts announcements."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self.raises: list[Exception] = []
        self.calls = 0
        self.hangs = False

    async def serve_axon(self, signer: Keypair, axon: Axon) -> None:
        self.calls += 1
        if self.hangs:
            await anyio.sleep_forever()
        if self.raises:
            raise self.raises.pop(0)
        await self._chain.serve_axon(signer, axon)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def me(self) -> Neuron:
        found = (await self._chain.metagraph()).by_hotkey(Hotkey(ALICE.ss58_address))
        assert found is not None
        return found


@pytest.fixture
async def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    monkeypatch.setattr("targon.chain.announcing.FIRST_PAUSE_S", 0.001)
    chain = EmbeddedChain.create(tmp_path / "chain.sqlite")
    chain.register(ALICE)
    yield Line(chain)
    await chain.aclose()


async def test_an_axon_is_put_on_chain(line: Line) -> None:
    assert await Announcer(line, ALICE, AXON).announce(Block(0))
    assert (await line.me()).axon == AXON


async def test_a_chain_that_fails_is_tried_again(line: Line) -> None:
    line.raises = [ChainUnavailable("down")] * (TRIES - 1)
    assert await Announcer(line, ALICE, AXON).announce(Block(0))
    assert ((await line.me()).axon, line.calls) == (AXON, TRIES)


async def test_after_a_few_tries_it_is_given_up_saying_why(line: Line) -> None:
    line.raises = [ChainUnavailable("the chain is down")] * 99
    with pytest.raises(NotAnnounced, match=r"192\.0\.2\.7:8092 in 5 tries \(the chain is down\)"):
        await Announcer(line, ALICE, AXON).announce(Block(0))
    assert line.calls == TRIES


async def test_a_chain_that_never_answers_is_not_waited_for_for_ever(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.chain.announcing.TIMEOUT_S", 0.01)
    line.hangs = True
    with anyio.fail_after(5), pytest.raises(NotAnnounced, match=r"no answer within 0\.01 s"):
        await Announcer(line, ALICE, AXON).announce(Block(0))


@pytest.mark.parametrize("error", [NotRegistered(Hotkey("5F"), 4, "…"), AxonRefused("no such address")])
async def test_what_trying_again_would_not_change_is_raised_at_once(line: Line, error: Exception) -> None:
    line.raises = [error]
    with pytest.raises(type(error)):
        await Announcer(line, ALICE, AXON).announce(Block(0))
    assert line.calls == 1


async def test_a_rate_limit_is_waited_out_to_the_block_that_it_names(line: Line) -> None:
    announcer = Announcer(line, ALICE, AXON)
    line.raises = [RateLimited(Block(30), "too soon")]
    assert not await announcer.announce(Block(10))
    await announcer.look(await line.me(), Block(29))
    assert line.calls == 1
    await announcer.look(await line.me(), Block(30))
    assert (await line.me()).axon == AXON


@pytest.mark.parametrize("axon", [None, OTHER, replace(AXON, port=1)])
async def test_what_the_chain_lost_or_has_otherwise_is_announced_again(line: Line, axon: Axon | None) -> None:
    announcer = Announcer(line, ALICE, AXON)
    await announcer.announce(Block(0))
    await line._chain.serve_axon(ALICE, OTHER)
    await announcer.look(replace(await line.me(), axon=axon), Block(REANNOUNCE_BLOCKS))
    assert (await line.me()).axon == AXON


async def test_what_stands_is_left_alone(line: Line) -> None:
    announcer = Announcer(line, ALICE, AXON)
    await announcer.announce(Block(0))
    await announcer.look(await line.me(), Block(10_000))
    assert line.calls == 1


async def test_it_is_announced_at_most_once_in_so_many_blocks_also_where_that_failed(line: Line) -> None:
    announcer = Announcer(line, ALICE, AXON)
    line.raises = [ChainUnavailable("down")] * TRIES
    with pytest.raises(NotAnnounced):
        await announcer.announce(Block(0))
    for block in range(1, REANNOUNCE_BLOCKS):
        await announcer.look(await line.me(), Block(block))
    assert line.calls == TRIES
    line.raises = [ChainUnavailable("down")] * TRIES
    await announcer.look(await line.me(), Block(REANNOUNCE_BLOCKS))
    await announcer.look(await line.me(), Block(2 * REANNOUNCE_BLOCKS - 1))
    assert ((await line.me()).axon, line.calls) == (None, 2 * TRIES)
    await announcer.look(await line.me(), Block(2 * REANNOUNCE_BLOCKS))
    assert (await line.me()).axon == AXON


async def test_looks_that_come_while_it_is_announced_announce_nothing(line: Line) -> None:
    announcer, me = Announcer(line, ALICE, AXON), await line.me()
    line.hangs = True
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(announcer.look, me, Block(10 * REANNOUNCE_BLOCKS))
        with anyio.fail_after(5):
            while not line.calls:
                await anyio.sleep(0.001)
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert line.calls == 1


async def test_without_a_uid_nothing_is_announced(line: Line) -> None:
    await Announcer(line, ALICE, AXON).look(None, Block(1_000))
    assert line.calls == 0


def test_the_external_address_is_announced_where_there_is_one() -> None:
    assert host_to_announce("0.0.0.0", "192.0.2.7") == "192.0.2.7"
    assert host_to_announce("127.0.0.2", None) == "127.0.0.2"


@pytest.mark.parametrize(("host", "words"), [("::", "listens everywhere"), ("example.org", "an IP address")])
def test_an_address_that_nobody_can_call_is_refused_naming_the_flag(host: str, words: str) -> None:
    with pytest.raises(AxonRefused, match=rf"{words}.*--axon\.external_ip"):
        host_to_announce(host, None)
