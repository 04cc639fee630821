"""UID, permit and weights, on a real embedded chain."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from targon.chain import ChainSettings, EmbeddedChain
from targon.doctor.chain import Link
from targon.doctor.registration import check_permit, check_taken_for_prover, check_uid, check_weights
from targon.protocol.primitives import Uid
from tests.doctor.looks import ANOTHER, OURS, look

pytestmark = pytest.mark.anyio


class Subnet:
    """A subnet with one permit to give, under a clock that stands until it is moved."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1_000.0
        settings = ChainSettings(
            block_seconds=1.0, tempo=10, max_validators=1, weights_version_key=10, weights_rate_limit=5
        )
        self.chain = EmbeddedChain.create(folder / "chain.sqlite", settings, clock=lambda: self.now_s)

    async def link(self) -> Link:
        return Link(self.chain, await self.chain.info())

    def seat(self, key, stake: float = 0.0) -> None:
        self.chain.register(key)
        if stake:
            self.chain.add_stake(key, stake)


@pytest.fixture
def subnet(tmp_path: Path) -> Iterator[Subnet]:
    made = Subnet(tmp_path)
    yield made
    made.chain.close()


async def test_a_hotkey_with_a_uid_is_good(subnet: Subnet) -> None:
    subnet.seat(ANOTHER)
    subnet.seat(OURS, 3.0)
    subnet.now_s += 8
    finding = await look(check_uid(await subnet.link(), OURS))
    assert finding.outcome == "good"
    assert finding.found.startswith("UID 1 of 2, registered 8 blocks ago, 3 TAO of stake")


async def test_a_hotkey_without_a_uid_is_told_the_command_that_registers_it(subnet: Subnet) -> None:
    finding = await look(check_uid(await subnet.link(), OURS))
    assert (finding.outcome, "is not registered on subnet 4" in finding.found) == ("bad", True)
    assert shlex.split(finding.advice)[:4] == ["targon", "chain", "register", str(subnet.chain.path)]


async def test_a_verifier_with_a_permit_is_good(subnet: Subnet) -> None:
    subnet.seat(OURS, 3.0)
    assert (await look(check_permit(await subnet.chain.metagraph(), OURS))).outcome == "good"


async def test_a_verifier_without_a_permit_is_told_what_the_last_one_has(subnet: Subnet) -> None:
    subnet.seat(OURS, 3.0)
    subnet.seat(ANOTHER, 50.0)
    finding = await look(check_permit(await subnet.chain.metagraph(), OURS))
    assert finding.outcome == "bad"
    assert "at 3 TAO of stake; the least stake with one is 50 TAO" in finding.found


async def weights(subnet: Subnet, version_key: int = 10, *, off: bool = False):
    link = await subnet.link()
    return await look(check_weights(link, await subnet.chain.metagraph(), OURS, version_key, off=off))


async def test_weights_that_would_be_taken_are_good_and_it_is_said_when(subnet: Subnet) -> None:
    subnet.seat(OURS, 3.0)
    subnet.seat(ANOTHER)
    never = await weights(subnet)
    await subnet.chain.set_weights(OURS, {Uid(1): 65_535}, version_key=10)
    since = await weights(subnet)
    assert (never.outcome, "never set yet" in never.found) == ("good", True)
    assert "set outright; last set in block 0, to be set again from block 5 on" in since.found


async def test_software_that_is_too_old_to_set_weights_is_bad(subnet: Subnet) -> None:
    subnet.seat(OURS, 3.0)
    finding = await weights(subnet, 9)
    assert (finding.outcome, "version key is 9, expected 10 or higher" in finding.found) == ("bad", True)


async def test_weights_that_are_committed_to_first_are_named(subnet: Subnet) -> None:
    subnet.seat(OURS, 3.0)
    subnet.chain.set_commit_reveal(reveal_epochs=2)
    assert "committed to, and revealed 2 epoch(s) later" in (await weights(subnet)).found


async def test_a_verifier_that_is_told_to_set_none_is_noted(subnet: Subnet) -> None:
    subnet.seat(OURS, 3.0)
    finding = await weights(subnet, off=True)
    assert (finding.outcome, "--neuron.disable_set_weights" in finding.advice) == ("note", True)


@pytest.mark.parametrize(("stake", "outcome"), [(4096.0, "good"), (4097.0, "note")])
async def test_a_prover_with_a_verifier_s_stake_is_noted(subnet: Subnet, stake: float, outcome: str) -> None:
    subnet.seat(OURS, stake)
    assert (await look(check_taken_for_prover(await subnet.chain.metagraph(), OURS))).outcome == outcome


async def test_the_metagraph_is_handed_on_and_nothing_where_there_is_no_uid(subnet: Subnet) -> None:
    without = await check_uid(await subnet.link(), OURS)
    subnet.seat(OURS)
    result = await check_uid(await subnet.link(), OURS)
    assert without.value is None
    assert result.value == await subnet.chain.metagraph()
