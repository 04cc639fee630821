"""Cheats on the real model, where the model is the point."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest

from targon.engines import Engine, GenerateTask, ReplayTask, connect_engine
from targon.protocol.primitives import TokenId
from targon.redteam import Attack, Bench, run_bench, with_needs
from targon.redteam.attacks import EngineSpec
from targon.redteam.judging import EXACT, STRUCTURE
from targon.redteam.mixtures import continued
from tests.redteam.conftest import PASSAGES, task_of, tiny_calibration

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(engine_socket: Path) -> AsyncGenerator[Engine, None]:
    async with connect_engine(engine_socket) as connected:
        yield connected


async def test_an_answer_continued_by_replay_is_the_one_that_the_engine_gives(engine: Engine):
    task = task_of("The cat sat on the mat.\n\nWhat did it do?", max_tokens=16)
    async with aclosing(engine.generate(task)) as steps:
        whole = [step async for step in steps]
    ids = [step.token_id for step in whole]
    assert await continued(engine, task, ids[:5], (9, 9)) == (ids, whole[-1].finish_reason)


async def test_a_sampler_that_is_hotter_than_asked_misses_tokens_and_an_honest_one_does_not(
    engine_socket: Path, tmp_path: Path
):
    class SocketBench(Bench):
        def tasks(self, attack: Attack) -> list[GenerateTask]:
            return [
                replace(task, sampling=task.sampling.model_copy(update={"max_tokens": 24}))
                for task in super().tasks(attack)
            ]

        @asynccontextmanager
        async def engine(self, spec: EngineSpec) -> AsyncGenerator[Engine, None]:
            async with connect_engine(engine_socket) as connected:
                yield connected

    bench = SocketBench(tmp_path, PASSAGES, completions=4)
    matrix = await run_bench(
        bench,
        with_needs(["T+0.2"]),
        tiny_calibration,
        clock=anyio.current_time,
        tell=lambda *_: None,
        streams=20,
        most_tokens=1_000,
    )
    honest, hotter = matrix.rows
    assert (honest.name, hotter.name) == ("honest-bf16", "T+0.2")
    assert honest.detection[EXACT] == honest.detection[STRUCTURE] == hotter.detection[STRUCTURE] == 0.0
    assert honest.conviction is not None
    assert hotter.conviction is not None
    assert (honest.conviction.convicted, hotter.conviction.convicted) == (0.0, 1.0)
    assert hotter.agreement < 0.97 < honest.agreement
    assert 0.0 < matrix.costs[STRUCTURE] < matrix.costs[EXACT] < 0.5


async def test_a_replay_says_where_a_wrong_token_was_claimed(engine: Engine):
    task = task_of("Count to five.", max_tokens=8)
    ids, _ = await continued(engine, task, [])
    wrong = (*ids[:2], TokenId(ids[2] + 1), *ids[3:])
    (replayed,) = await engine.replay([ReplayTask(task.messages, wrong, task.sampling, task.run_key)])
    assert int(np.flatnonzero(replayed.replay.margins)[0]) == 2
