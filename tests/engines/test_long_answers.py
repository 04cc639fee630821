"""Answers that outgrow the memory that a row began with, while others come and go."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from targon.engines.transformers_engine import open_transformers_engine

from .tasks import answer, ids_of, task

pytestmark = pytest.mark.anyio


async def test_answers_that_grow_long_while_others_end_and_begin_are_those_given_alone(
    tiny_model: Path,
) -> None:
    lengths = (280, 300, 260, 290, 10)
    asked = [task(max_tokens=length, run_key=place) for place, length in enumerate(lengths)]
    together: dict[int, tuple[int, ...]] = {}
    async with open_transformers_engine(tiny_model, max_batch=3) as engine:

        async def ask(place: int) -> None:
            together[place] = ids_of(await answer(engine, asked[place]))

        async with anyio.create_task_group() as tasks:
            for place in range(len(asked)):
                tasks.start_soon(ask, place)
        for place, one in enumerate(asked):
            assert ids_of(await answer(engine, one)) == together[place]
