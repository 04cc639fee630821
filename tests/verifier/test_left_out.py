"""An oracle that leaves a verifier out: said loudly and once, where the verifier has had its permit for long enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from targon.ledger import ReliesOn
from targon.protocol.private_inputs import NO_COMMITMENT, PLACE_AFTER_BLOCKS
from tests.verifier.oracle_seat import MINE, ORACLES, OTHER, an_oracle, seated
from tests.verifier.scripted_oracle import PERIOD, Period

pytestmark = pytest.mark.anyio

LONG = PLACE_AFTER_BLOCKS
"""The permit was seen in block 0: from here on a verifier has to have a place."""


def told(*whose: tuple[int, tuple[Any, ...]]) -> list[Period]:
    """Periods by their first block, and who has places in each."""
    made: list[Period] = []
    for number, (first, verifiers) in enumerate(whose):
        previous = made[-1].body.digest() if made else NO_COMMITMENT
        made.append(Period(number, verifiers, previous=previous, first=first))
    return made


def said(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"] == event]


async def test_who_is_left_out_says_so_once_by_name_and_goes_on_with_its_own_source(tmp_path: Path):
    oracle = an_oracle()
    oracle.chain.permits = {MINE, OTHER}
    oracle.periods = told((LONG, (OTHER,)), (LONG + PERIOD, (OTHER,)))
    with capture_logs() as logs:
        async with seated(tmp_path, oracle) as seat:
            await seat.reach(LONG + PERIOD)
            assert await seat.text() == "own 1"
            assert oracle.asked == []
            assert seat.counted("oracle_troubles_total", kind="left_out") == 2
            assert await seat.caught() == [], "nobody else can see it in the log, so that it accuses nobody"
    (entry,) = said(logs, "oracle_leaves_us_out")
    assert (entry["log_level"], entry["oracle"]) == ("error", ORACLES)
    assert entry["error"] == (
        f"it leaves this verifier out of blocks {LONG} to {LONG + PERIOD - 1}, which has had a permit since block 0 "
        "or longer"
    )
    assert "ask the oracle's operator why" in entry["do"]


async def test_one_that_had_a_place_and_is_left_out_afterwards_says_why_in_its_log(tmp_path: Path):
    oracle = an_oracle()
    oracle.chain.permits = {MINE, OTHER}
    oracle.periods = told(
        (LONG, (MINE, OTHER)), (LONG + PERIOD, (OTHER,)), (LONG + 2 * PERIOD, (MINE, OTHER))
    )
    with capture_logs() as logs:
        async with seated(tmp_path, oracle) as seat:
            await seat.reach(LONG + 2 * PERIOD)
            relied = [event for event in await seat.events() if isinstance(event, ReliesOn)]
    assert [event.inputs for event in relied] == [(ORACLES,), (), (ORACLES,)]
    assert "it leaves this verifier out of blocks" in relied[1].why
    assert len(said(logs, "oracle_leaves_us_out")) == len(said(logs, "oracle_has_a_place_again")) == 1


@pytest.mark.parametrize("held", [False, True], ids=["without a permit", "with a new permit"])
async def test_who_has_no_permit_or_just_got_one_accuses_nobody(tmp_path: Path, held: bool):
    oracle = an_oracle()
    oracle.chain.permits = {OTHER}
    oracle.periods = told((LONG, (OTHER,)))
    with capture_logs() as logs:
        async with seated(tmp_path, oracle) as seat:
            await seat.reach(20)
            if held:
                oracle.chain.permits.add(MINE)
            await seat.reach(LONG)
            assert await seat.text() == "own 1"
            assert seat.counted("oracle_troubles_total", kind="left_out") == 0
    assert said(logs, "oracle_leaves_us_out") == []


async def test_a_permit_that_was_lost_meanwhile_counts_from_its_return(tmp_path: Path):
    oracle = an_oracle()
    oracle.chain.permits = {MINE, OTHER}
    oracle.periods = told((LONG, (OTHER,)))
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(30)
        oracle.chain.permits.discard(MINE)
        await seat.reach(60)
        oracle.chain.permits.add(MINE)
        await seat.reach(LONG)
        assert seat.counted("oracle_troubles_total", kind="left_out") == 0


async def test_a_chain_that_does_not_tell_is_asked_again(tmp_path: Path):
    oracle = an_oracle()
    oracle.chain.permits = {MINE, OTHER}
    oracle.chain.silent = True
    oracle.periods = told((LONG + 20, (OTHER,)))
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(10)
        oracle.chain.silent = False
        await seat.reach(LONG + 20)
        assert seat.counted("oracle_troubles_total", kind="left_out") == 1
