"""An engine that was started again while it was used: whether it is still the one that was probed."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from targon.engines import EngineUnavailable
from targon.engines.model_card import CONVERSATIONS
from targon.engines.remote import RemoteEngine, open_remote_engine
from targon.engines.remote.familiarity import IDLE_S, Familiarity
from tests.engines.tasks import answer

from .fake_vllm import ASKED, COMPLETIONS, LISTED, MODEL, healthy_vllm, likely, prompt_ids
from .scripted_server import Answer, Asked, serving, whole

pytestmark = pytest.mark.anyio


def other_weights(before: Sequence[int]) -> dict[int, float]:
    """The same tokens as the model's, half a nat off."""
    return {token_id: logprob - 0.5 for token_id, logprob in likely(before).items()}


def sure(before: Sequence[int]) -> dict[int, float]:
    """The model's own choice, with next to no doubt: as large models are most of the time."""
    first, *others = likely(before)
    return {first: math.log(0.99)} | {id_: math.log(0.01 / LISTED) - 0.1 * n for n, id_ in enumerate(others)}


def turned(before: Sequence[int]) -> dict[int, float]:
    """The model's own, but that the first two tokens of one answer have changed places, as a near-tie may."""
    found = likely(before)
    if tuple(before) != prompt_ids(CONVERSATIONS[0]):
        return found
    (first, one), (second, other), *others = found.items()
    return {second: one, first: other, **dict(others)}


class Restarted:
    """A vLLM that fails once, and then is another."""

    def __init__(self, **change: Any) -> None:
        self.before, self.after = healthy_vllm(), healthy_vllm(**change)
        self.down = self.again = False

    def route(self, route: str) -> Any:
        def say(asked: Asked) -> Answer:
            if self.down:
                return whole({"error": "shutting down"}, status=500)
            chosen = (self.after if self.again else self.before)[route][0]
            return chosen(asked) if callable(chosen) else chosen

        return say


@asynccontextmanager
async def restarted(**change: Any) -> AsyncIterator[RemoteEngine]:
    """An engine that was probed, has failed a task, and now answers again, changed."""
    vllm = Restarted(**change)
    routes = ("GET /v1/models", "GET /version", "POST /tokenize", COMPLETIONS)
    async with (
        serving({route: [vllm.route(route)] for route in routes}) as server,
        open_remote_engine(server.url) as engine,
    ):
        await answer(engine, ASKED)
        vllm.down = True
        with pytest.raises(EngineUnavailable, match="HTTP 500"):
            await answer(engine, ASKED)
        vllm.down, vllm.again = False, True
        yield engine


async def test_an_engine_that_comes_back_as_it_was_is_used_again() -> None:
    async with restarted() as engine:
        assert await answer(engine, ASKED)


async def test_one_that_comes_back_in_another_version_is_used_if_it_answers_the_same() -> None:
    async with restarted(version="0.99.0") as engine:
        await engine.check()
        assert await answer(engine, ASKED)


async def test_one_that_turns_a_near_tie_in_one_answer_is_the_same() -> None:
    async with restarted(rule=turned) as engine:
        assert await answer(engine, ASKED)


async def test_one_that_comes_back_with_other_weights_answers_no_task() -> None:
    async with restarted(rule=other_weights) as engine:
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match="it runs another model, or in another number format"):
                await answer(engine, ASKED)
        with pytest.raises(EngineUnavailable, match="another engine answers there now"):
            await engine.check()


async def test_one_that_comes_back_without_the_sampler_answers_no_task() -> None:
    async with restarted(sampler=False) as engine:
        with pytest.raises(EngineUnavailable, match="started without the plugin"):
            await answer(engine, ASKED)


async def test_after_a_while_without_an_answer_it_is_asked_again() -> None:
    now = [100.0]
    async with serving(healthy_vllm()) as server, open_remote_engine(server.url) as engine:
        known = Familiarity(engine._backend, engine._folder, engine.capabilities, lambda: now[0])
        before = len(server.asked(COMPLETIONS))
        now[0] += IDLE_S / 2
        await known.ensure()
        assert len(server.asked(COMPLETIONS)) == before
        known.answered()
        now[0] += IDLE_S - 1.0
        await known.ensure()
        assert len(server.asked(COMPLETIONS)) == before
        now[0] += 1.0
        await known.ensure()
        assert len(server.asked(COMPLETIONS)) > before


@pytest.mark.parametrize("rule", [likely, sure])
@pytest.mark.parametrize("sampler", [True, False])
async def test_the_sampler_is_seen_however_sure_the_model_is(rule: Any, sampler: bool) -> None:
    async with (
        serving(healthy_vllm(rule=rule, sampler=sampler)) as server,
        open_remote_engine(server.url, strict=False) as engine,
    ):
        assert ("targon/1" in engine.identity.dialects) == sampler
        assert engine.identity.name == MODEL
