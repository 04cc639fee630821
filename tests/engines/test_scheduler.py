"""Sharing one model: who waits, who is turned away, and what those who wait hear when it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import torch

from targon.engines import EngineBusy, EngineUnavailable, Step, TextStream
from targon.engines.batch import Batch, Decoding
from targon.engines.kv_cache import RowCache
from targon.engines.model_runner import ModelRunner, ScoreRow
from targon.engines.model_thread import ModelThread
from targon.engines.port import Scores
from targon.engines.scheduler import Scheduler
from targon.engines.transformers_engine import TransformersEngine, open_transformers_engine
from targon.protocol.primitives import TokenId

from .tasks import answer, task

pytestmark = pytest.mark.anyio


class BrokenRunner(ModelRunner):
    """A model that breaks when it is used."""

    def __init__(self) -> None:
        pass

    def prefill(self, cache: RowCache, tokens: Sequence[TokenId], start: int) -> torch.Tensor:
        raise RuntimeError("out of memory")

    def prefill_together(self, cache: RowCache, prompts: Sequence[Sequence[TokenId]]) -> None:
        raise RuntimeError("out of memory")

    def score(self, rows: Sequence[ScoreRow]) -> list[Scores]:
        raise RuntimeError("out of memory")


def never_chosen(*_: object) -> list[int]:
    raise AssertionError("nothing is drawn from a model that gives no logits")


@asynccontextmanager
async def scheduler(max_queue: int, *, working: bool = True) -> AsyncIterator[Scheduler]:
    """A scheduler over a broken model, at work or not yet."""
    runner = BrokenRunner()
    with ModelThread() as thread:
        made = Scheduler(runner, Batch(runner, never_chosen, 2), thread, max_batch=2, max_queue=max_queue)
        async with anyio.create_task_group() as tasks:
            if working:
                tasks.start_soon(made.run)
            yield made
            tasks.cancel_scope.cancel()


async def generate(made: Scheduler) -> list[Step]:
    decoding = Decoding((TokenId(1), TokenId(2), TokenId(3)), task().sampling, 0)
    text = TextStream(str, eos_ids=(), stop=())
    return [step async for step in made.generate(decoding, text)]


async def failure_of(made: Scheduler, failures: list[Exception]) -> None:
    try:
        await generate(made)
    except EngineUnavailable as error:
        failures.append(error)


async def test_everyone_who_waits_hears_that_the_model_broke() -> None:
    failures: list[Exception] = []
    async with scheduler(8) as made:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(failure_of, made, failures)
        assert [str(error) for error in failures] == [
            "the engine failed (RuntimeError: out of memory); restart it"
        ] * 4
        with pytest.raises(EngineUnavailable, match="out of memory"):
            made.check()
        with pytest.raises(EngineUnavailable, match="out of memory"):
            await generate(made)
        assert made.active == 0


async def test_who_waits_for_scores_hears_that_the_model_broke() -> None:
    async with scheduler(8) as made:
        with pytest.raises(EngineUnavailable, match="out of memory"):
            await made.score([ScoreRow((TokenId(1), TokenId(2)), 1, 5)])


async def test_a_full_queue_turns_away_what_comes_next() -> None:
    async with scheduler(2, working=False) as made, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(failure_of, made, [])
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(EngineBusy, match="2 completions wait already, expected fewer than 2"):
            await generate(made)
        tasks.cancel_scope.cancel()


async def test_closing_an_engine_ends_the_wait_of_all(tiny_model: Path) -> None:
    failures: list[Exception] = []

    async def wait_for_the_end(engine: TransformersEngine) -> None:
        try:
            await answer(engine, task(max_tokens=8_000))
        except EngineUnavailable as error:
            failures.append(error)

    async with (
        anyio.create_task_group() as tasks,
        open_transformers_engine(tiny_model, max_batch=2) as engine,
    ):
        for _ in range(3):
            tasks.start_soon(wait_for_the_end, engine)
        while engine.active < 2:
            await anyio.sleep(0.01)
    assert [str(error) for error in failures] == ["the engine was closed"] * 3
