"""An engine that contradicts what it was asked, itself or the model's folder: its answer is never passed on as good."""

from __future__ import annotations

import math
from typing import Any

import pytest

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.port import GenerateTask, ScoreTask, Step
from targon.engines.remote.folder import ModelFolder
from targon.engines.remote.openai import OpenAiBackend
from tests.engines.tasks import answer, ids_of, task, text_of

from .fake_vllm import (
    ASKED,
    COMPLETIONS,
    MODEL,
    SEA,
    engine_at,
    event,
    model_folder,
    piece,
    prompt_ids,
    refused,
    sea_ids,
    told,
)
from .scripted_server import serving, stream

pytestmark = pytest.mark.anyio

EOS = model_folder().eos_ids[0]
LONG = tuple(range(1_000, 1_016))
"""As many tokens as are asked for."""


async def generated(events: list[Any], asked: GenerateTask = ASKED) -> list[Step]:
    async with serving({COMPLETIONS: [stream(*events)]}) as server, engine_at(server.url) as engine:
        return await answer(engine, asked)


async def contradiction(events: list[Any], asked: GenerateTask = ASKED) -> str:
    """What is said of an engine that answers so."""
    with pytest.raises(EngineUnavailable) as caught:
        await generated(events, asked)
    assert type(caught.value) is EngineUnavailable
    return str(caught.value)


def with_change(place: int, **changes: object) -> list[Any]:
    """The healthy answer, a field of one event's choice changed."""
    events = told()
    events[place]["choices"][0].update(changes)
    return events


# what it counted, and where it stopped


@pytest.mark.parametrize("count", [0, len(sea_ids()) - 1, len(sea_ids()) + 1, 10**9])
async def test_a_count_of_tokens_is_that_of_those_streamed(count: int) -> None:
    message = await contradiction(told(counted={"completion_tokens": count}))
    assert f"it generated {count} tokens, expected the {len(sea_ids())} that it streamed" in message


async def test_going_on_behind_the_end_of_sequence_is_noticed() -> None:
    assert "goes on with token 504 after the answer's end" in await contradiction(
        told((*sea_ids(), 504, EOS))
    )


async def test_going_on_behind_the_end_in_one_event_is_noticed() -> None:
    events = [event([EOS, 504], "x", ended="stop"), told()[-1]]
    assert "goes on with token 504 after the answer's end" in await contradiction(events)


async def test_going_on_beyond_the_tokens_asked_for_is_noticed() -> None:
    message = await contradiction(told((*LONG, 1_016), ended="length"))
    assert "goes on with token 1016 after the answer's end" in message


@pytest.mark.parametrize("ids", [sea_ids()[:-1], LONG], ids=["early", "at the limit"])
async def test_stopping_takes_an_end_of_sequence_token(ids: tuple[int, ...]) -> None:
    message = await contradiction(told(ids))
    assert f"after {len(ids)} tokens with none of the model's end-of-sequence tokens [{EOS}]" in message
    assert "generation config" in message


async def test_ending_by_length_takes_as_many_tokens_as_were_asked_for() -> None:
    message = await contradiction(told(LONG[:15], ended="length"))
    assert "it stopped after 15 tokens, expected 16" in message
    assert "start it with a longer context" in message


async def test_ending_by_length_with_as_many_tokens_as_were_asked_for_is_good() -> None:
    steps = await generated(told(LONG, ended="length"))
    assert (ids_of(steps), steps[-1].finish_reason) == (LONG, "length")


# tokens and their log-probabilities


@pytest.mark.parametrize("token_id", [49_152, 2**31, 2**63, 2**80, -1])
async def test_token_ids_are_the_vocabularys(token_id: int) -> None:
    message = await contradiction(told((sea_ids()[0], token_id, EOS), texts=["The", "?", ""]))
    assert f"got token id {token_id}, expected one below 49152: it runs another model" in message


@pytest.mark.parametrize("logprobs", [[-0.5], [-0.5, -0.5, -0.5]])
async def test_each_token_has_one_log_probability(logprobs: list[float]) -> None:
    message = await contradiction([event(sea_ids()[:2], "The sea", logprobs), *told()[2:]])
    assert f"got 2 token ids and {len(logprobs)} log-probabilities for them" in message


@pytest.mark.parametrize("value", [0.5, 1e300])
async def test_a_log_probability_is_not_above_zero(value: float) -> None:
    message = await contradiction(told(logprobs=[value] + [-0.5] * 6))
    assert f"got log-probability {value} of token {sea_ids()[0]}" in message


async def test_rounding_above_zero_is_taken_off() -> None:
    steps = await generated(told(logprobs=[1e-7] + [-0.5] * 6))
    assert [step.logprob for step in steps][:2] == [0.0, -0.5]


@pytest.mark.parametrize("value", [None, -9999.0])
async def test_a_log_probability_that_is_missing_or_minus_infinity_is_told_as_such(
    value: float | None,
) -> None:
    first = (await generated(told(logprobs=[value] + [-0.5] * 6)))[0]
    assert math.isnan(first.logprob) if value is None else first.logprob == -math.inf


async def test_no_log_probabilities_at_all_are_no_contradiction() -> None:
    events = told()
    for one in events[:-1]:
        one["choices"][0]["logprobs"] = None
    assert all(math.isnan(step.logprob) for step in await generated(events))


@pytest.mark.parametrize("name", ["The", "token_id:", "token_id:" + "9" * 5_000, ""])
async def test_a_likely_token_without_a_number_is_of_no_interest(name: str) -> None:
    events = told()
    events[0]["choices"][0]["logprobs"]["top_logprobs"] = [{name: -0.5}]
    assert ids_of(await generated(events)) == sea_ids()


# texts


@pytest.mark.parametrize("place", [0, 3, 5])
async def test_ids_are_those_of_the_text(place: int) -> None:
    texts = [piece(id_) for id_ in sea_ids()]
    texts[place] = " hill"
    message = await contradiction(told(texts=texts))
    assert "its text isn't that of its token ids" in message
    assert "its tokenizer is another" in message


async def test_a_text_that_stops_short_of_its_ids_is_noticed() -> None:
    texts = [piece(id_) for id_ in sea_ids()]
    texts[5] = ""
    assert "its text isn't that of its token ids: got ''" in await contradiction(told(texts=texts))


async def test_spaces_and_unfinished_characters_are_no_contradiction() -> None:
    texts = [piece(id_) for id_ in sea_ids()]
    texts[0], texts[3] = "\N{REPLACEMENT CHARACTER} The", "calm  "
    assert text_of(await generated(told(texts=texts))) == SEA


async def test_no_text_at_all_is_no_contradiction() -> None:
    assert text_of(await generated(told(texts=[""] * len(sea_ids())))) == SEA


async def test_what_comes_behind_a_stop_string_is_of_no_interest() -> None:
    asked = task(dialect="greedy", temperature=0.0, max_tokens=16, stop=(" calm",))
    events = [*told()[:4], event([99_999], "!"), event([99_999], "!", ended="stop")]
    steps = await generated(events, asked)
    assert (text_of(steps), steps[-1].finish_reason) == ("The sea is", "stop_string")


# prompts and models


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (prompt_ids()[:-1], f"at position {len(prompt_ids()) - 1} got []"),
        ((1, *prompt_ids()), "at position 1 got [1, "),
        ((), f"got 0 tokens, expected {len(prompt_ids())}"),
        ((*prompt_ids()[:5], 7, *prompt_ids()[6:]), "at position 5 got [7, "),
    ],
)
async def test_the_prompt_it_read_is_the_one_it_was_sent(prompt: tuple[int, ...], words: str) -> None:
    message = await contradiction(told(prompt=prompt))
    assert "it read another prompt than it was sent" in message
    assert words in message


async def test_the_prompts_length_is_that_of_the_one_it_was_sent() -> None:
    message = await contradiction(told(counted={"prompt_tokens": 7}))
    assert f"it read a prompt of 7 tokens, expected the {len(prompt_ids())} that it was sent" in message


@pytest.mark.parametrize("place", [0, 3, -1])
async def test_every_event_is_of_the_same_model(place: int) -> None:
    events = told()
    events[place]["model"] = "another-model"
    assert f"it was answered by model 'another-model', expected {MODEL!r}" in await contradiction(events)


@pytest.mark.parametrize("reason", ["abort", "content_filter", "repetition", ""])
async def test_an_end_for_any_other_reason_is_none(reason: str) -> None:
    assert "cannot be read" in await contradiction(with_change(-2, finish_reason=reason))


# the context's length


async def test_a_task_beyond_the_context_is_refused_before_anything_is_sent() -> None:
    room = len(prompt_ids()) + 15
    async with serving({}) as server, engine_at(server.url, context_length=room) as engine:
        with pytest.raises(
            TaskRefused, match=f"context length: .* together {room + 1}, expected at most {room}"
        ):
            await answer(engine, ASKED)
        with pytest.raises(TaskRefused, match=f"context length: .* expected at most {room}"):
            await engine.score([ScoreTask(ASKED.messages, LONG, 5)])
        assert server.requests == []


async def test_a_task_that_just_fits_is_sent() -> None:
    room = len(prompt_ids()) + 16
    events = stream(*told(LONG, ended="length"))
    async with (
        serving({COMPLETIONS: [events]}) as server,
        engine_at(server.url, context_length=room) as engine,
    ):
        assert ids_of(await answer(engine, ASKED)) == LONG


async def test_an_engine_whose_limit_is_lower_than_it_says_refuses_in_its_own_words() -> None:
    no = refused(400, "This model's maximum context length is 32 tokens.")
    async with serving({COMPLETIONS: [no]}) as server, engine_at(server.url) as engine:
        with pytest.raises(
            TaskRefused, match=r"the engine at .* refuses .*HTTP 400.*maximum context length is 32"
        ):
            await answer(engine, ASKED)
        with pytest.raises(TaskRefused, match="maximum context length is 32"):
            await engine.score([ScoreTask(ASKED.messages, LONG, 5)])


# endpoints without token ids


def openai_event(content: str | None, ended: str | None = None) -> dict[str, Any]:
    return {"model": MODEL, "choices": [{"delta": {"content": content}, "finish_reason": ended}]}


async def openai_answer(*events: object, stop: tuple[str, ...] = ()) -> list[Step]:
    folder: ModelFolder = model_folder()
    asked = task(dialect="native", max_tokens=16, stop=stop)
    async with (
        serving({"POST /v1/chat/completions": [stream(*events)]}) as server,
        engine_at(server.url, backend=lambda calls: OpenAiBackend(calls, folder.chat.encode_text)) as engine,
    ):
        return await answer(engine, asked)


async def test_a_text_that_ends_is_given_the_end_of_sequence_token_that_it_lacks() -> None:
    steps = await openai_answer(openai_event(SEA), openai_event(None, "stop"))
    assert (ids_of(steps), text_of(steps), steps[-1].finish_reason) == (sea_ids(), SEA, "stop")


async def test_a_text_that_ends_with_the_start_of_a_stop_string_keeps_it() -> None:
    steps = await openai_answer(openai_event(SEA), openai_event(None, "stop"), stop=(".\n\n",))
    assert text_of(steps) == SEA


async def test_messages_that_no_template_renders_are_refused() -> None:
    asked = GenerateTask((), ASKED.sampling, 0)
    async with serving({}) as server, engine_at(server.url) as engine:
        with pytest.raises(TaskRefused, match="messages: got none"):
            await answer(engine, asked)
        assert server.requests == []
