"""A verifier at work whose engine is borrowed: what its verdicts say, and that nobody is charged for what oracles can't
agree on."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from targon.engines import GenerateTask, Step
from targon.ledger import Attempt, Event, Verdict
from targon.verifier.borrowed import borrow
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import World

from .lending import LyingEngine, lent

pytestmark = pytest.mark.anyio


def outcomes(events: list[Event], prover: str) -> set[str]:
    """What became of a prover's answers."""
    whose = {place: event.prover for place, event in enumerate(events) if isinstance(event, Attempt)}
    return {
        f"{event.outcome} {event.method}"
        for event in events
        if isinstance(event, Verdict) and whose[event.attempt] == prover and event.method != "delivery"
    }


def judged(events: list[Event]) -> int:
    return sum(isinstance(event, Verdict) and event.method != "delivery" for event in events)


def not_charged(events: list[Event]) -> list[Verdict]:
    return [event for event in events if isinstance(event, Verdict) and event.outcome == "inconclusive"]


async def test_two_honest_oracles_of_three_convict_a_cheat_that_the_third_would_clear(world: World) -> None:
    async with lent(LyingEngine(), TinyEngine(), TinyEngine()) as lenders:
        world.reference = await borrow(lenders, 2)  # type: ignore[assignment]
        async with world.prover("Honest") as honest, world.prover("Cheat", TinyEngine(wrong=True)) as cheat:
            events = await world.verify_until(lambda events: judged(events) >= 4)
    assert outcomes(events, honest) == {"pass divergence"}
    assert outcomes(events, cheat) == {"fail divergence"}
    assert {
        event.evidence["borrowed"]
        for event in events
        if isinstance(event, Verdict) and event.method == "divergence"
    } == {"2 of 3"}


async def test_what_oracles_disagree_about_is_inconclusive_and_charges_nobody(world: World) -> None:
    async with lent(LyingEngine(), TinyEngine()) as lenders:
        world.reference = await borrow(lenders, 2)  # type: ignore[assignment]
        async with world.prover("Cheat", TinyEngine(wrong=True)) as cheat:
            events = await world.verify_until(lambda events: judged(events) >= 2)
    assert outcomes(events, cheat) == {"inconclusive divergence"}
    reasons = [
        event.reason for event in events if isinstance(event, Verdict) and event.method == "divergence"
    ]
    assert "contradict each other" in reasons[0]


class OnceEngine(TinyEngine):
    """Goes down as soon as it has written a query."""

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        async for step in super().generate(task):
            yield step
        self.down = True


async def test_a_silent_prover_is_not_charged_while_no_oracle_answers(world: World) -> None:
    async with lent(OnceEngine()) as lenders:
        world.reference = await borrow(lenders, 1)  # type: ignore[assignment]
        await world.offline_prover("Silent")
        events = await world.verify_until(lambda events: bool(not_charged(events)))
    assert not_charged(events)[0].reason.startswith("our own side was out of order: of 1 oracles, 0 answered")
