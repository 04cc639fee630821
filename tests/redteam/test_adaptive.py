"""A prover that repairs what would give it away, and what it pays."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from targon.engines import ReplayTask
from targon.redteam.adaptive import Repairing
from tests.redteam.conftest import Cheap, task_of
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio


async def margins(engine: Repairing, true: TinyEngine, key: int) -> list[float]:
    task = task_of(key=key, max_tokens=12)
    async with aclosing(engine.generate(task)) as steps:
        ids = tuple([step.token_id async for step in steps])
    (replayed,) = await true.replay([ReplayTask(task.messages, ids, task.sampling, task.run_key)])
    return replayed.replay.margins.tolist()


async def test_with_checks_enough_no_token_misses_by_more_than_the_tolerance():
    engine = Repairing(Cheap(), TinyEngine(), tolerance=0.5, checks=40)
    for key in range(6):
        assert max(await margins(engine, TinyEngine(), key)) <= 0.5
    assert engine.answers == 6
    assert engine.checked == engine.repaired + engine.answers  # the last check of each finds nothing


async def test_with_one_check_the_first_bad_token_is_repaired_and_no_other():
    true = TinyEngine()
    for key in range(6):
        before = await margins(Repairing(Cheap(), true, tolerance=0.5, checks=0), true, key)
        repaired = Repairing(Cheap(), true, tolerance=0.5, checks=1)
        after = await margins(repaired, true, key)
        first = next((place for place, margin in enumerate(before) if margin > 0.5), None)
        if first is None:
            assert after == before
        else:
            assert after[:first] == before[:first]
            assert after[first] == 0.0
        assert repaired.checked == 1


async def test_an_honest_answer_needs_one_check_and_no_repair():
    engine = Repairing(TinyEngine(), TinyEngine(), tolerance=0.0, checks=5)
    assert set(await margins(engine, TinyEngine(), 1)) == {0.0}
    assert (engine.checked, engine.repaired) == (1, 0)
