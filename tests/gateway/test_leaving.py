"""Users who leave before an answer's end: it is read on for a while, so that nobody has one for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import openai
import pytest

from targon.gateway.api import Bounds
from targon.gateway.keys import Allowed
from tests.gateway.dispatch_world import a_world, answers
from tests.gateway.front_world import HELLO, MODEL, Script, World, a_front, chat, delta

pytestmark = pytest.mark.anyio

HI = chat()["messages"]


@asynccontextmanager
async def a_user_who_left(world: World, model: str = MODEL) -> AsyncIterator[None]:
    """Somebody who took the first piece of an answer, and left."""
    async with world.client() as client:
        stream = await client.chat.completions.create(model=model, messages=HI, stream=True, max_tokens=8)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        yield


async def until_nothing_runs(world: World) -> None:
    with anyio.fail_after(5):
        while world.count("targon_gateway_running"):
            await anyio.sleep(0.01)


async def test_an_answer_that_had_begun_is_read_to_its_end_and_paid_for_whole(tmp_path):
    rest = asyncio.Event()
    script = Script(pieces=[*HELLO, rest.wait, delta("!", 3), delta("!", 4)])
    async with a_front(tmp_path, script) as world, a_user_who_left(world):
        with anyio.fail_after(5):
            while not world.count("targon_gateway_abandoned_total"):
                await anyio.sleep(0.01)
        rest.set()
        await until_nothing_runs(world)
    assert (script.finished, script.hung_up) == (1, 0)
    assert world.count("targon_gateway_tokens_total", kind="prompt") == 7
    assert world.count("targon_gateway_tokens_total", kind="completion") == 5


async def test_who_leaves_one_answer_after_the_other_stays_under_the_limits_of_the_key(tmp_path):
    rest = asyncio.Event()
    script = Script(pieces=[*HELLO, rest.wait])
    allowed = Allowed(requests_per_minute=0, tokens_per_minute=0, concurrent=1)
    async with a_front(tmp_path, script, allowed=allowed) as world, a_user_who_left(world):
        async with world.client() as client:
            with pytest.raises(openai.RateLimitError, match="requests of this key are running"):
                await client.chat.completions.create(model=MODEL, messages=HI)
        rest.set()
        await until_nothing_runs(world)
        async with a_user_who_left(world):
            await until_nothing_runs(world)
    assert script.finished == 2


async def test_an_answer_that_goes_on_for_long_is_hung_up_on(tmp_path):
    script = Script(pieces=[*HELLO, anyio.sleep_forever])
    bounds = Bounds(left_s=0.3)
    async with a_front(tmp_path, script, bounds=bounds) as world, a_user_who_left(world):
        began_s = anyio.current_time()
        await until_nothing_runs(world)
        assert anyio.current_time() - began_s > 0.1
    assert (script.finished, script.hung_up) == (0, 1)
    assert world.count("targon_gateway_tokens_total", kind="completion") == 3


async def test_who_leaves_before_anybody_began_to_answer_is_hung_up_for_at_once(tmp_path):
    script = Script(before=anyio.sleep_forever)
    async with a_front(tmp_path, script) as world:
        with anyio.move_on_after(0.3):
            await world.post({"model": MODEL, "messages": HI})
        with anyio.fail_after(5):
            while not script.hung_up:
                await anyio.sleep(0.01)
    assert script.hung_up == 1
    assert world.count("targon_gateway_tokens_total", kind="prompt") == 0


async def test_a_prover_whose_answer_came_though_the_user_left_has_it_logged_as_answered(tmp_path):
    prover = answers(5, 6, 7, 8, pause_s=0.1)
    async with (
        a_world(prover) as behind,
        a_front(tmp_path, behind.dispatcher) as world,  # type: ignore[arg-type]
        a_user_who_left(world, "tiny"),
    ):
        assert await behind.desk.until_told(1) == [("answered", 0)]
    assert len(behind.desk.answers[0].response.completion.token_ids) == 4
