"""The chain, its head, and our clock against it: on real embedded chains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from targon.chain import PUBLIC_NETWORKS, Chain, ChainSettings, EmbeddedChain, open_chain
from targon.doctor.chain import Link, TellsTime, Watched, check_chain, check_clock, check_head
from tests.doctor.looks import look, only
from tests.prover.world import MemoryChain

pytestmark = pytest.mark.anyio

BLOCK_S = 0.2


@contextmanager
def a_chain(folder: Path, clock: Callable[[], float] = time.time) -> Iterator[EmbeddedChain]:
    settings = ChainSettings(block_seconds=BLOCK_S, tempo=10)
    chain = EmbeddedChain.create(folder / "chain.sqlite", settings, clock=clock)
    try:
        yield chain
    finally:
        chain.close()


def opening(chain: Chain):
    async def opened() -> Chain:
        return chain

    return opened


async def linked(chain: Chain) -> Link:
    return Link(chain, await chain.info())


async def test_a_chain_that_answers_is_good_and_handed_on(tmp_path: Path) -> None:
    with a_chain(tmp_path) as chain:
        result = await check_chain(opening(chain), "", time.monotonic)
        genesis = (await chain.info()).genesis
    assert only(result).outcome == "good"
    assert f"subnet 4, genesis {genesis[:12]}" in only(result).found
    assert result.value == Link(chain, result.value.info)


@pytest.mark.parametrize(
    ("endpoint", "netuid", "said"),
    [
        ("", 4, "chain endpoint"),
        ("sqlite:nowhere.sqlite", 4, "got no file there"),
        ("sqlite:{folder}/chain.sqlite", 7, "got netuid 7, expected 4"),
        ("sqlite:{folder}/text", 4, "no SQLite database"),
    ],
)
async def test_a_chain_that_cannot_be_had_is_bad_in_its_own_words(
    tmp_path: Path, endpoint: str, netuid: int, said: str
) -> None:
    (tmp_path / "text").write_text("dear diary, today it rained; nothing else happened, and nobody came by")
    with a_chain(tmp_path):

        async def opened() -> Chain:
            return await open_chain(endpoint.format(folder=tmp_path), netuid)

        result = await check_chain(opened, "", time.monotonic)
    assert (only(result).outcome, said in only(result).found, result.value) == ("bad", True, None)


async def test_a_chain_that_is_down_is_bad() -> None:
    chain = MemoryChain()
    chain.down = True
    finding = await look(check_chain(opening(chain), "", time.monotonic))
    assert (finding.outcome, finding.found) == ("bad", "the chain is down")


async def test_a_slow_chain_is_noted_and_handed_on(tmp_path: Path) -> None:
    seconds = iter((0.0, 9.0))
    with a_chain(tmp_path) as chain:
        result = await check_chain(opening(chain), "", lambda: next(seconds))
    assert (only(result).outcome, "takes 4500 ms" in only(result).found) == ("note", True)
    assert result.value is not None


@pytest.mark.parametrize("network", PUBLIC_NETWORKS)
async def test_another_network_than_the_one_that_is_meant_is_bad(tmp_path: Path, network: str) -> None:
    with a_chain(tmp_path) as chain:
        result = await check_chain(opening(chain), network, time.monotonic)
    assert (only(result).outcome, result.value) == ("bad", None)
    assert f"expected {PUBLIC_NETWORKS[network][:12]}" in only(result).found


async def test_a_network_of_one_s_own_may_have_any_genesis(tmp_path: Path) -> None:
    with a_chain(tmp_path) as chain:
        assert (await look(check_chain(opening(chain), "local", time.monotonic))).outcome == "good"


async def test_a_head_that_moves_is_good(tmp_path: Path) -> None:
    with a_chain(tmp_path) as chain:
        assert (await look(check_head(await linked(chain), time.time))).outcome == "good"


async def test_a_head_that_stands_is_bad_and_its_age_is_said(tmp_path: Path) -> None:
    now_s = time.time()
    with a_chain(tmp_path, clock=lambda: now_s) as chain:
        result = await check_head(await linked(chain), lambda: now_s + 70.0)
    assert only(result).outcome == "bad"
    assert "it has stood at block 0, which is 70 s old: got no new block in 0.5 s" in only(result).found
    assert result.value == Watched(0, new=False, seen_s=now_s + 70.0, made_s=now_s)


async def clock_of(chain: EmbeddedChain, now_s: Callable[[], float] = time.time):
    link = await linked(chain)
    watched = (await check_head(link, now_s)).value
    return await look(check_clock(link, watched))


@pytest.mark.parametrize(("off_s", "said"), [(60.0, "60 s behind"), (-60.0, "60 s ahead")])
async def test_a_clock_that_is_a_minute_off_is_bad(tmp_path: Path, off_s: float, said: str) -> None:
    with a_chain(tmp_path, clock=lambda: time.time() + off_s) as chain:
        finding = await clock_of(chain)
    assert (finding.outcome, said in finding.found) == ("bad", True)
    assert "timedatectl set-ntp" in finding.advice


async def test_an_embedded_chain_that_reads_our_own_clock_proves_nothing_and_says_so(tmp_path: Path) -> None:
    with a_chain(tmp_path) as chain:
        finding = await clock_of(chain)
    assert (finding.outcome, "reads this machine's own clock" in finding.found) == ("note", True)


async def test_without_a_new_block_the_clock_cannot_be_told_to_be_ahead(tmp_path: Path) -> None:
    now_s = time.time()
    with a_chain(tmp_path, clock=lambda: now_s) as chain:
        finding = await clock_of(chain, lambda: now_s + 70.0)
    assert (finding.outcome, finding.found) == ("note", "not checked: that needs a new block, and none came")


class TimedChain(MemoryChain):
    """A chain elsewhere, which says when its blocks were made."""

    async def block_time(self, block: int) -> float:
        return 1_000.0 + block


@pytest.mark.parametrize(
    ("age_s", "outcome"), [(0.0, "good"), (2.1, "good"), (2.3, "bad"), (-1.9, "good"), (-2.1, "bad")]
)
async def test_a_clock_may_differ_by_two_seconds_and_a_block_be_its_time_on_its_way(
    age_s: float, outcome: str
) -> None:
    chain = TimedChain(block_seconds=BLOCK_S)
    assert isinstance(chain, TellsTime)
    watched = Watched(7, new=True, seen_s=1_007.0 + age_s, made_s=await chain.block_time(7))
    assert (await look(check_clock(await linked(chain), watched))).outcome == outcome


async def test_a_chain_that_tells_no_time_leaves_the_clock_unchecked() -> None:
    chain = MemoryChain()
    assert not isinstance(chain, TellsTime)
    finding = await look(check_clock(await linked(chain), Watched(7, new=True, seen_s=7.0, made_s=None)))
    assert (finding.outcome, "doesn't say when" in finding.found) == ("note", True)
