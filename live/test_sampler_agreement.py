"""The protocol sampler inside vLLM, against the reference: in float32 every token is the one that the sampler draws."""

from __future__ import annotations

import anyio
import numpy as np
import pytest

from targon.engines import Engine, ReplayTask
from targon.engines.remote import RemoteEngine
from targon.redteam import evaluation_passages
from targon.verification.workload import BROAD, draw_tasks
from tests.engines.tasks import answer, ids_of, task

pytestmark = pytest.mark.anyio

TOKENS = 2_000


async def test_every_one_of_two_thousand_tokens_is_what_the_sampler_draws(
    vllm: RemoteEngine, reference: Engine
) -> None:
    asked = draw_tasks(evaluation_passages(), BROAD, "agreement of vLLM in float32", 40)
    replays: list[ReplayTask] = []
    room = anyio.Semaphore(8)

    async def ask(place: int) -> None:
        async with room:
            one = asked[place]
            steps = await answer(vllm, one)
            replays.append(ReplayTask(one.messages, ids_of(steps), one.sampling, one.run_key))

    async with anyio.create_task_group() as group:
        for place in range(len(asked)):
            group.start_soon(ask, place)
    replayed = await reference.replay(replays)
    agreeing = np.concatenate([one.replay.margins == 0.0 for one in replayed])
    assert agreeing.size >= TOKENS
    assert agreeing.all(), f"{agreeing.sum()} of {agreeing.size} positions agree"


async def test_requests_with_and_without_the_sampler_share_a_batch(
    vllm: RemoteEngine, reference: Engine
) -> None:
    drawn, greedy = task(max_tokens=32), task(temperature=0.0, dialect="greedy", max_tokens=32)
    native = task(dialect="native", temperature=1.0, max_tokens=32)
    answers: dict[str, tuple[int, ...]] = {}

    async with anyio.create_task_group() as group:
        for name, one in (("drawn", drawn), ("greedy", greedy), ("native", native)):

            async def ask(name: str = name, one: object = one) -> None:
                answers[name] = ids_of(await answer(vllm, one))

            group.start_soon(ask)
    for name, one in (("drawn", drawn), ("greedy", greedy)):
        claim = ReplayTask(one.messages, answers[name], one.sampling, one.run_key)
        (replayed,) = await reference.replay([claim])
        assert replayed.replay.agreement == 1.0, name
    assert answers["native"]


async def test_a_closed_answer_is_let_go_by_vllm(vllm: RemoteEngine, vllm_url: str) -> None:
    import aiohttp

    async def running() -> float:
        async with aiohttp.ClientSession() as session, session.get(f"{vllm_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))

    async with anyio.create_task_group() as group:
        group.start_soon(answer, vllm, task(max_tokens=4_000))
        with anyio.fail_after(120):
            while await running() == 0.0:
                await anyio.sleep(0.1)
        group.cancel_scope.cancel()
    with anyio.fail_after(120):
        while await running() > 0.0:
            await anyio.sleep(0.1)
