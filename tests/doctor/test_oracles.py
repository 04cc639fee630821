"""What a verifier's doctor says of the oracles that it names: true ones, lying ones, and ones that aren't there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from targon.chain import SubnetInfo
from targon.doctor import Finding, OraclePlace, reach
from targon.doctor.chain import Link
from targon.doctor.log import Story
from targon.doctor.oracles import check_caught, check_oracles
from targon.doctor.sqlite import SqlitePlace
from targon.ledger import Caught, OracleFaulted
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.profile import STANDARD
from targon.transport import Deadlines
from tests.doctor.looks import a_web_server, dropping, only
from tests.ledger.history import log_opened
from tests.prover.world import PROVER, a_prover
from tests.verifier.oracle_seat import ME, MINE, ORACLES, OTHER, an_oracle
from tests.verifier.scripted_oracle import FIRST, GENESIS, NETUID, STRANGER, Period, ScriptedOracle, periods

pytestmark = pytest.mark.anyio


class World:
    """An oracle that tells the truth or not, and the chain that a verifier sees."""

    def __init__(self, oracle: ScriptedOracle, port: int) -> None:
        self.oracle = oracle
        self.place = OraclePlace(ORACLES, "127.0.0.1", port, tls=False)
        info = SubnetInfo(
            genesis=GENESIS,
            netuid=NETUID,
            block_seconds=12.0,
            tempo=360,
            weights_version_key=0,
            weights_rate_limit=100,
            commit_reveal=False,
            reveal_epochs=0,
        )
        self.link = Link(oracle.chain, info)  # type: ignore[arg-type]  # as much of a chain as is asked

    async def look(self, place: OraclePlace | None = None, *, lent: bool = False) -> list[Finding]:
        result = await check_oracles(self.link, ME, [place or self.place], lent=lent)
        return list(result.findings)

    async def finding(self, place: OraclePlace | None = None) -> Finding:
        (found,) = await self.look(place)
        assert found.found.startswith(f"{place or self.place}: ")
        return found


@asynccontextmanager
async def a_world(oracle: ScriptedOracle | None = None) -> AsyncIterator[World]:
    oracle = oracle or an_oracle()
    oracle.chain.now = FIRST
    async with oracle.serving() as port:
        yield World(oracle, port)


async def test_one_that_has_committed_to_what_comes_is_good() -> None:
    async with a_world() as world:
        finding = await world.finding()
    assert finding.outcome == "good"
    assert (
        "draws from a script; signed commitments for blocks up to 5, 3 ahead, with 3 places" in finding.found
    )


async def test_several_are_told_of_in_the_order_in_which_they_are_named() -> None:
    async with a_world() as world:
        gone = replace(world.place, port=9)
        found = (await check_oracles(world.link, ME, [gone, world.place], lent=False)).findings
    assert [each.outcome for each in found] == ["bad", "good"]


async def test_another_hotkey_is_named() -> None:
    async with a_world() as world:
        finding = await world.finding(replace(world.place, hotkey=OTHER))
    assert finding.outcome == "bad"
    assert f"{ORACLES}, expected {OTHER}" in finding.found


async def test_one_whose_commitments_are_not_signed_by_the_hotkey_is_bad() -> None:
    oracle = an_oracle()
    oracle.periods = [Period(0, (MINE,), signer=STRANGER)]
    async with a_world(oracle) as world:
        finding = await world.finding()
    assert (finding.outcome, "commitment 0" in finding.found) == ("bad", True)


async def test_one_of_another_network_is_bad() -> None:
    async with a_world() as world:
        world.link = Link(world.link.chain, replace(world.link.info, netuid=9))
        finding = await world.finding()
    assert (finding.outcome, "it serves subnet 4" in finding.found) == ("bad", True)


@pytest.mark.parametrize("raw", [b"{}", b"[1]", b"[" * 100_000])
async def test_one_whose_commitments_are_garbage_is_bad(raw: bytes) -> None:
    async with a_world(an_oracle(raw_commitments=raw)) as world:
        assert (await world.finding()).outcome == "bad"


async def test_one_that_has_committed_to_nothing_that_comes_is_worth_a_note() -> None:
    oracle = an_oracle()
    oracle.periods = []
    async with a_world(oracle) as world:
        finding = await world.finding()
    assert (finding.outcome, f"nothing after block {FIRST}" in finding.found) == ("note", True)


async def test_one_that_has_no_place_for_us_is_worth_a_note() -> None:
    oracle = an_oracle()
    oracle.periods = periods(2, OTHER)
    async with a_world(oracle) as world:
        finding = await world.finding()
    assert (finding.outcome, f"no place for {MINE}" in finding.found) == ("note", True)


async def test_one_that_lags_behind_the_chain_is_worth_a_note() -> None:
    async with a_world() as world:
        head = await world.link.chain.block()

        class Ahead:
            async def block(self) -> Block:
                return Block(head + 6)

        world.link = Link(Ahead(), world.link.info)  # type: ignore[arg-type]
        found = await world.look()
    assert [each.outcome for each in found] == ["note", "note"]
    assert f"the newest block that it has seen is {head}" in found[0].found


async def test_one_that_lends_no_engine_is_bad_for_a_light_verifier() -> None:
    async with a_world() as world:
        found = await world.look(lent=True)
    assert [each.outcome for each in found] == ["good", "bad"]
    assert "lends no engine" in found[1].found


async def test_a_port_that_is_closed_or_speaks_no_tls_or_something_else_is_bad() -> None:
    async with a_world() as world, a_web_server() as web, a_prover() as prover:
        for place in (
            replace(world.place, port=9),
            replace(world.place, tls=True),
            replace(world.place, port=web),
            OraclePlace(Hotkey(PROVER.ss58_address), "127.0.0.1", prover.axon.port, tls=False),
            replace(world.place, host="no-such-host.invalid"),
        ):
            finding = await world.finding(place)
            assert (finding.outcome, "--oracle.url" in finding.advice) == ("bad", True)


async def test_a_firewall_that_drops_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Deadlines(connect_s=0.3, first_byte_s=0.3, between_bytes_s=0.3, total_s=0.5)
    monkeypatch.setattr("targon.doctor.oracles.DEADLINES", quick)
    assert reach.DEADLINES.total_s < 15.0  # what a check has
    async with a_world() as world:
        with dropping() as port, anyio.fail_after(5.0):
            finding = await world.finding(replace(world.place, port=port))
    assert finding.outcome == "bad"


# -- what the log tells of them


def story(folder: Path, *faults: OracleFaulted) -> Story:
    return Story(
        SqlitePlace(folder),
        log_opened(STANDARD),
        1,
        True,
        Block(0),
        Block(9),
        None,
        None,
        {fault.oracle: fault for fault in faults},
    )


@pytest.mark.parametrize(
    ("what", "pardoned", "outcome"),
    [
        ("equivocated", (), "note"),
        ("unchained", (), "note"),
        ("equivocated", (ORACLES,), "good"),
        ("misdealt", (), "good"),
    ],
)
async def test_one_that_is_left_for_good_is_named_until_it_is_pardoned(
    tmp_path: Path, what: Caught, pardoned: tuple[Hotkey, ...], outcome: str
) -> None:
    place = OraclePlace(ORACLES, "127.0.0.1", 8093, tls=False)
    fault = OracleFaulted(block=Block(7), oracle=ORACLES, what=what, detail="")
    finding = only(await check_caught(story(tmp_path, fault), [place], pardoned))
    assert finding.outcome == outcome
    if outcome == "note":
        assert f"--oracle.pardon {ORACLES}" in finding.advice
