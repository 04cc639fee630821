"""Scores that are cut short, another request's, given before or no probabilities never become a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from targon.engines.errors import EngineError, EngineUnavailable, TaskRefused
from targon.engines.port import ReplayTask, Scores, ScoreTask
from tests.engines.tasks import task

from .fake_vllm import (
    ASKED,
    COMPLETIONS,
    LISTED,
    engine_at,
    healthy_vllm,
    likely,
    prompt_ids,
    scored,
    sea_ids,
)
from .scripted_server import Script, serving, whole

pytestmark = pytest.mark.anyio

Broken = Callable[[dict[str, Any]], None]
TASK = ScoreTask(ASKED.messages, sea_ids(), 5)
FIRST = len(prompt_ids())
"""The position of the first claimed token."""


async def score(script: Script, *tasks: ScoreTask) -> list[Scores]:
    async with serving(script) as server, engine_at(server.url) as engine:
        return await engine.score(tasks or [TASK])


async def contradiction(broken: Broken) -> str:
    """What is said of an engine whose scores are broken so."""
    with pytest.raises(EngineUnavailable) as caught:
        await score(healthy_vllm(scores=broken))
    return str(caught.value)


def positions(scores: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scores["choices"][0]["prompt_logprobs"]
    return found


def listed(scores: dict[str, Any], place: int = FIRST + 1) -> list[str]:
    """The likely tokens of a claimed position, which the claimed one isn't among, most likely first."""
    return [
        id_ for id_ in positions(scores)[place] if int(id_) != scores["choices"][0]["prompt_token_ids"][place]
    ]


def entry(value: object, rank: object = 1) -> Broken:
    """Gives the claimed token another log-probability or rank."""

    def broken(scores: dict[str, Any]) -> None:
        own = str(scores["choices"][0]["prompt_token_ids"][FIRST + 1])
        positions(scores)[FIRST + 1][own] = {"logprob": value, "rank": rank}

    return broken


def likely_one(value: object, which: int = 0) -> Broken:
    """Gives a likely token another log-probability."""

    def broken(scores: dict[str, Any]) -> None:
        positions(scores)[FIRST + 1][listed(scores)[which]]["logprob"] = value

    return broken


def named(name: str) -> Broken:
    """Gives a likely token another id."""

    def broken(scores: dict[str, Any]) -> None:
        position = positions(scores)[FIRST + 1]
        position[name] = position.pop(listed(scores)[0])

    return broken


async def test_healthy_scores_are_those_of_the_claimed_tokens() -> None:
    (scores,) = await score(healthy_vllm())
    expected = [likely((*prompt_ids(), *sea_ids()[:place])) for place in range(len(sea_ids()))]
    assert scores.prompt_tokens == FIRST
    assert scores.top_ids.tolist() == [list(one)[:5] for one in expected]
    assert np.allclose(scores.top_logprobs, [list(one.values())[:5] for one in expected])
    assert scores.claimed_logprobs.tolist() == [-14.0] * len(sea_ids())
    assert scores.claimed_ranks.tolist() == [700] * len(sea_ids())


# cut short, or another request's


def fewer_positions(scores: dict[str, Any]) -> None:
    positions(scores).pop()


def fewer_tokens(scores: dict[str, Any]) -> None:
    positions(scores).pop()
    scores["choices"][0]["prompt_token_ids"].pop()
    scores["usage"]["prompt_tokens"] -= 1


def fewer_tokens_in_front(scores: dict[str, Any]) -> None:
    del positions(scores)[1:4]
    del scores["choices"][0]["prompt_token_ids"][1:4]
    scores["usage"]["prompt_tokens"] -= 3


def shorter_lists(scores: dict[str, Any]) -> None:
    for position in positions(scores)[1:]:
        position.popitem()
        position.popitem()


def no_own_token(scores: dict[str, Any]) -> None:
    del positions(scores)[FIRST + 1][str(sea_ids()[1])]


def no_position(scores: dict[str, Any]) -> None:
    scores["choices"][0]["prompt_logprobs"][FIRST + 1] = None


def first_position(scores: dict[str, Any]) -> None:
    scores["choices"][0]["prompt_logprobs"][0] = {"5": {"logprob": -0.5, "rank": 1}}


def other_tokens(scores: dict[str, Any]) -> None:
    ids, found = scores["choices"][0]["prompt_token_ids"], positions(scores)[FIRST + 1]
    found["777"] = found.pop(str(ids[FIRST + 1]))
    ids[FIRST + 1] = 777


def counted(scores: dict[str, Any]) -> None:
    scores["usage"]["prompt_tokens"] -= 1


def another_model(scores: dict[str, Any]) -> None:
    scores["model"] = "another-model"


def nothing(scores: dict[str, Any]) -> None:
    scores["choices"][0].update(prompt_logprobs=[], prompt_token_ids=[])
    scores["usage"]["prompt_tokens"] = 0


def too_large_ids(scores: dict[str, Any]) -> None:
    scores["choices"][0]["prompt_token_ids"][FIRST + 1] = 2**80


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (fewer_positions, "got prompt log-probabilities of"),
        (fewer_tokens, "that are not the"),
        (fewer_tokens_in_front, "that are not the"),
        (shorter_lists, "its answer was cut short, or belongs to another request"),
        (no_own_token, f"and that of token {sea_ids()[1]}: its answer was cut short"),
        (no_position, "got 0 log-probabilities at position"),
        (first_position, "of which the first has none"),
        (other_tokens, "they belong to another request"),
        (counted, "got scores of"),
        (another_model, "by model 'another-model'"),
        (nothing, "answer cannot be read"),
        (too_large_ids, "log-probabilities at position"),
    ],
)
async def test_scores_of_other_tokens_than_were_sent_are_none(broken: Broken, words: str) -> None:
    assert words in await contradiction(broken)


async def test_an_engine_that_gives_no_scores_can_be_no_reference() -> None:
    def none(scores: dict[str, Any]) -> None:
        scores["choices"][0]["prompt_logprobs"] = None

    with pytest.raises(TaskRefused, match="it can't be a reference"):
        await score(healthy_vllm(scores=none))


async def test_an_answer_that_was_given_before_is_a_caches() -> None:
    body = {"prompt": [*prompt_ids(), *sea_ids()], "prompt_logprobs": 5}
    cached = whole(scored(body, likely, "SmolLM2-135M-Instruct", "cmpl-7"))
    async with serving({COMPLETIONS: [cached]}) as server, engine_at(server.url) as engine:
        await engine.score([TASK])
        with pytest.raises(EngineUnavailable, match="its answer cmpl-7 was given before: a cache between"):
            await engine.score([TASK])


# no probabilities


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (entry(math.nan), "a log-probability that is none"),
        (entry(0.5), "a log-probability that is none"),
        (entry(math.inf), "a log-probability that is none"),
        (entry(None), "cannot be read"),
        (entry("x"), "cannot be read"),
        (entry(-0.5, rank=700), "probabilities that sum to more than 1"),
        (entry(-14.0, rank=2), "a rank that contradicts the list"),
        (entry(-14.0, rank=-7), "a rank that contradicts the list"),
        (entry(-14.0, rank=2**40), "cannot be read"),
        (likely_one(math.nan), "a log-probability that is none in a list"),
        (likely_one(0.5), "probabilities that sum to more than 1"),
        (likely_one(-0.01), "probabilities that sum to more than 1"),
        (likely_one(math.inf), "probabilities that sum to more than 1"),
        (named("49152"), "a token id beyond the vocabulary"),
        (named("-1"), "a token id beyond the vocabulary"),
        (named("2147483648"), "cannot be read"),
        (named("the"), "cannot be read"),
        (named(""), "cannot be read"),
        (named("9" * 5_000), "cannot be read"),
    ],
)
async def test_numbers_that_are_no_probabilities_are_no_scores(broken: Broken, words: str) -> None:
    assert words in await contradiction(broken)


async def test_one_token_twice_in_a_list_is_no_list() -> None:
    def twice(scores: dict[str, Any]) -> None:
        position, (first, second, *_) = positions(scores)[FIRST + 1], listed(scores)
        position["0" + first] = position.pop(second)

    assert "one token twice in a list" in await contradiction(twice)


async def test_minus_infinity_is_a_log_probability() -> None:
    def impossible(scores: dict[str, Any]) -> None:
        entry(-9999.0, rank=800)(scores)
        likely_one(-9999.0, which=4)(scores)

    (scores,) = await score(healthy_vllm(scores=impossible))
    assert scores.claimed_logprobs[1] == scores.top_logprobs[1, 4] == -math.inf


async def test_the_order_of_a_list_is_by_its_numbers() -> None:
    def turned(scores: dict[str, Any]) -> None:
        for position in positions(scores)[1:]:
            entries = list(position.items())
            position.clear()
            position.update(reversed(entries))

    (healthy,), (scores,) = await score(healthy_vllm()), await score(healthy_vllm(scores=turned))
    assert np.array_equal(scores.top_ids, healthy.top_ids)


# several tasks


async def test_scores_come_in_the_order_of_the_tasks() -> None:
    tasks = [ScoreTask(ASKED.messages, sea_ids()[:count], 5) for count in (3, 1, 2)]
    assert [one.claimed_ranks.size for one in await score(healthy_vllm(), *tasks)] == [3, 1, 2]


async def test_more_tasks_than_there_is_room_for_take_turns() -> None:
    async with (
        serving(healthy_vllm()) as server,
        engine_at(server.url, max_requests=2, max_queue=0) as engine,
    ):
        assert len(await engine.score([TASK] * 9)) == 9


async def test_one_task_that_fails_fails_them_all_with_its_own_error() -> None:
    def second(scores: dict[str, Any]) -> None:
        if len(scores["choices"][0]["prompt_token_ids"]) == FIRST + 2:
            another_model(scores)

    tasks = [ScoreTask(ASKED.messages, sea_ids()[:count], 5) for count in (3, 2, 1)]
    with pytest.raises(EngineUnavailable, match="by model 'another-model'"):
        await score(healthy_vllm(scores=second), *tasks)


async def test_no_tasks_are_no_requests() -> None:
    async with serving({}) as server, engine_at(server.url) as engine:
        assert await engine.score([]) == []
        assert server.requests == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (ScoreTask(ASKED.messages, (), 5), "token_ids: got none"),
        (ScoreTask(ASKED.messages, (49_152,), 5), "token id: got 49152, expected one from 0 to 49151"),
        (ScoreTask(ASKED.messages, (-1,), 5), "token id: got -1"),
        (ScoreTask(ASKED.messages, (1,), -1), "top_k: got -1"),
        (ScoreTask(ASKED.messages, (1,), 49_153), "top_k: got 49153"),
        (
            ScoreTask(ASKED.messages, (1,), LISTED + 1),
            f"expected at most {LISTED}, which is what this engine",
        ),
        (ScoreTask(ASKED.messages, (1,), 0), "top_k: got 0 \\(all 49152\\)"),
    ],
)
async def test_a_task_that_cannot_be_scored_is_refused_before_anything_is_sent(
    asked: ScoreTask, words: str
) -> None:
    async with serving({}) as server, engine_at(server.url) as engine:
        with pytest.raises(TaskRefused, match=words):
            await engine.score([TASK, asked])
        assert server.requests == []


async def test_a_replay_over_broken_scores_is_no_replay() -> None:
    sampled = task()
    replay = ReplayTask(sampled.messages, sea_ids(), sampled.sampling, sampled.run_key)
    async with serving(healthy_vllm(scores=fewer_tokens)) as server, engine_at(server.url) as engine:
        with pytest.raises(EngineError, match="that are not the"):
            await engine.replay([replay])
