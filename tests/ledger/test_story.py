"""A prover's history in words."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from targon.ledger import Entry, Log, UnknownProver, explain
from targon.ledger.port import EMPTY
from targon.protocol.primitives import Hotkey, Uid
from tests.ledger.history import (
    ALICE,
    BOB,
    CAROL,
    History,
    answered,
    attempt,
    fails,
    history_with_routes,
    hotkey,
    inference,
    joined,
    left,
    step_closed,
    verdict,
    weights_set,
    withdrawn,
)
from tests.ledger.worlds import World

pytestmark = pytest.mark.anyio

SEVEN, ZERO, ONE = Uid(7), Uid(0), Uid(1)


def a_life() -> History:
    history = History.begun(ALICE, BOB)
    history.step(1, (ALICE, "pass"), (BOB, "fail"), tokens=63)
    history.add(weights_set({1: 65_535}, 2))
    history.step(2, (ALICE, "pass")).step(3, (ALICE, "inconclusive"))
    history.turn(0, 10).add(weights_set({0: 65_535}, 10))
    history.add(left(ALICE, 0, 11), weights_set({1: 65_535}, 11), joined(CAROL, 0, 12), joined(ALICE, 7, 12))
    first = history.next
    history.add(attempt(ALICE, 13), attempt(ALICE, 13))
    history.add(
        *(verdict(first + i, "fail", reason="token 3 of 64 differs") for i in range(2)), step_closed(13)
    )
    return history.turn(1, 20)


@pytest.fixture
async def log(world: World) -> AsyncIterator[Log]:
    async with world.open() as log:
        await log.append(a_life().events, expected=EMPTY)
        yield log


def lines(entries: list[Entry]) -> list[str]:
    return [f"{entry.block} {entry.kind}: {entry.text}" for entry in entries]


async def test_native_work_is_told_to_count_for_nothing(world: World) -> None:
    history = History.begun(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1, dialect="native"), verdict(number), step_closed(1))
    async with world.open() as log:
        await log.append(history.events, expected=EMPTY)
        told = lines(await explain(log, ALICE))
    assert any(line.startswith("1 verdict") and line.endswith("counts for nothing") for line in told)


async def test_inferences_are_told_by_how_they_ended(world: World) -> None:
    history = history_with_routes(ALICE, BOB)
    first = history.next
    history.add(*(inference(ALICE, 1) for _ in range(6)), inference(ALICE, 1, counted=False))
    history.add(answered(first, ALICE, speed=9.0), answered(first + 1, ALICE, audited=True))
    history.add(
        withdrawn(first + 2, "user_left"), withdrawn(first + 3, "outrun"), withdrawn(first + 4, "busy")
    )
    history.add(verdict(first + 5, "fail", reason="no answer in time"), answered(first + 6, ALICE))
    history.add(verdict(first + 1), step_closed(1))
    async with world.open() as log:
        await log.append(history.events, expected=EMPTY)
        told = lines(await explain(log, ALICE))
        others = lines(await explain(log, BOB))
    assert told[1:-1] == [
        "1 answered: inference answered: 64 tokens; earns +0.333",
        "1 answered: inference answered: 64 tokens; drawn for an audit, which decides what it earns",
        "1 withdrawn: inference withdrawn: whoever had asked hung up; counts for nothing",
        "1 withdrawn: inference withdrawn: another prover, asked for the same, began to answer first; "
        "counts for nothing",
        "1 withdrawn: inference withdrawn: it was sent more than it takes at once, and refused; counts for nothing",
        "1 verdict: inference failed (exact): no answer in time; earns -0.500",
        "1 answered: inference answered: 64 tokens; counts for nothing",
        "1 verdict: inference passed (exact): 64 of 64 tokens equal; earns +0.333",
    ]
    assert others == ["0 joined: joined as UID 1, a new hotkey"]


async def test_a_life_is_told_verdict_by_verdict(log: Log) -> None:
    assert lines(await explain(log, ALICE)) == [
        "0 joined: joined as UID 0, a new hotkey",
        "1 verdict: challenge passed (exact): 64 of 64 tokens equal; earns +0.333",
        "1 score: score 0.0000 → 0.0167 after the work of block 1",
        "2 weight: weight 0 of 65535: on probation",
        "2 verdict: challenge passed (exact): 64 of 64 tokens equal; earns +0.333",
        "2 score: score 0.0167 → 0.0325 after the work of block 2",
        "3 verdict: challenge inconclusive (exact): 64 of 64 tokens equal; counts for nothing",
        "10 tier: interval 0: stayed, Bronze: 2 of 2 attempts succeeded; "
        "1 more were inconclusive, over 10% of all sent: no promotion",
        "10 weight: weight 65535 of 65535",
        "11 left: left UID 0; it keeps its standing",
        "12 joined: came back as UID 7 with what it had: Bronze, score 0.0325",
        "13 verdict: challenge failed (exact): token 3 of 64 differs; earns -0.100",
        "13 verdict: challenge failed (exact): token 3 of 64 differs; earns -0.100",
        "13 score: score 0.0325 → 0.0208 after the work of block 13",
        "20 tier: interval 1: stayed, Bronze: 0 of 2 attempts succeeded; "
        "Bronze asks for 70%, and there is no lower tier",
    ]


async def test_a_weight_of_zero_says_which_score_it_comes_from(log: Log) -> None:
    weights = [entry.text for entry in await explain(log, BOB) if entry.kind == "weight"]
    assert weights[1] == "weight 0 of 65535: on probation"
    head = await log.head()
    history = History()
    async for record in log.read():
        history.add(record.event)
    history.step(21, (BOB, "pass"), tokens=64).step(22, (BOB, "fail")).step(23, *fails(BOB, 10))
    history.add(weights_set({7: 65_535}, 24))
    await log.append(history.events[head.seq + 1 :], expected=head)
    weights = [entry.text for entry in await explain(log, BOB) if entry.kind == "weight"]
    assert weights[-1] == "weight 0 of 65535: score 0.0000"


async def test_a_uid_means_its_holder_now(log: Log) -> None:
    assert await explain(log, SEVEN) == await explain(log, ALICE)
    assert await explain(log, ZERO) == await explain(log, CAROL)


async def test_a_uid_that_nobody_holds_means_the_last_that_did(log: Log) -> None:
    head = await log.head()
    await log.append([left(BOB, 1, 30)], expected=head)
    assert await explain(log, ONE) == await explain(log, BOB)


async def test_the_entries_name_their_records(log: Log) -> None:
    for entry in await explain(log, ALICE):
        (record,) = [record async for record in log.read(entry.seq, entry.seq + 1)]
        kinds = {"joined": "prover_joined", "left": "prover_left", "score": "step_closed"}
        kinds |= {"tier": "interval_closed", "weight": "weights_set", "verdict": "verdict"}
        assert record.event.kind == kinds[entry.kind]


async def test_who_is_unknown_is_said(log: Log) -> None:
    with pytest.raises(UnknownProver, match="got UID 99, expected one that a prover holds or held: 0, 1, 7"):
        await explain(log, Uid(99))
    with pytest.raises(UnknownProver, match="expected one that held a UID in this log"):
        await explain(log, Hotkey(hotkey(40)))
