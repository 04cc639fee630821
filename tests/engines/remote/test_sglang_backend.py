"""The backend of SGLang's own API, against answers in the form that its source gives them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.engines.errors import EngineBusy, EngineUnavailable, TaskRefused
from targon.engines.remote.calls import Calls
from targon.engines.remote.sglang import SglangBackend
from targon.engines.remote.sglang_answers import Answer as SglangAnswer
from targon.engines.remote.sglang_answers import GrowingAnswer
from targon.engines.sampler_arguments import sampler_arguments
from targon.engines.sglang_plugin import PROCESSOR
from targon.protocol.messages import Sampling
from targon.protocol.primitives import TokenId
from tests.engines.tasks import task

from .scripted_server import Answer, Asked, calling, serving, stream, whole
from .scripted_sglang import (
    DRAWN,
    GREEDY,
    MESSAGES,
    ROUTE,
    answering,
    entries,
    events,
    generated,
    meta,
    scripted,
)

pytestmark = pytest.mark.anyio


async def sent(sampling: Sampling) -> Any:
    """What is asked for by a sampler."""
    async with scripted(answering([7])) as (backend, server):
        await generated(backend, sampling)
    return server.requests[0].body


async def test_greedy_work_is_asked_for_with_everything_else_off() -> None:
    body = await sent(GREEDY)
    assert body["input_ids"] == [1, 15, 16]
    assert body["stream"] is True
    assert "custom_logit_processor" not in body
    assert body["sampling_params"] == {
        "max_new_tokens": 4,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
    }


async def test_native_work_has_the_engines_own_parameters_and_a_seed_that_it_takes() -> None:
    body = await sent(task(dialect="native", temperature=0.7, top_p=0.9, max_tokens=4).sampling)
    params = body["sampling_params"]
    assert (params["temperature"], params["top_p"], params["top_k"], params["sampling_seed"]) == (
        0.7,
        0.9,
        -1,
        5,
    )


async def test_the_protocols_sampler_is_a_logit_processor_around_greedy_work() -> None:
    body = await sent(DRAWN)
    assert body["custom_logit_processor"] == PROCESSOR
    assert body["sampling_params"]["temperature"] == 0.0
    assert body["sampling_params"]["custom_params"] == sampler_arguments(DRAWN, 2**63 + 5)
    assert body["return_logprob"] is False  # they are taken after the processor


async def test_another_sampler_is_refused_by_name() -> None:
    async with scripted(answering([7])) as (backend, server):
        with pytest.raises(TaskRefused, match="got 'vllm', expected 'targon/1'"):
            await generated(backend, task(dialect="vllm").sampling)
    assert server.requests == []


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("finish", [{"type": "length", "length": 4}, {"type": "stop", "matched": 2}])
async def test_an_answer_is_the_same_however_it_is_streamed(incremental: bool, finish: Any) -> None:
    async with scripted(answering([7, 7, 8, 2], incremental=incremental, finish=finish)) as (backend, _):
        chunks = await generated(backend, top=2)
    assert [chunk.token_ids for chunk in chunks] == [(7,), (7,), (8,), (2,)]
    assert [chunk.text for chunk in chunks] == ["<7>", "<7>", "<8>", "<2>"]
    assert [chunk.logprobs for chunk in chunks] == [(-0.07,), (-0.07,), (-0.08,), (-0.02,)]
    assert chunks[2].top == ({8: -0.08, 9: -0.09},)
    assert [chunk.ended for chunk in chunks] == [None, None, None, finish["type"]]
    assert (chunks[-1].prompt_tokens, chunks[-1].completion_tokens) == (3, 4)


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    step=st.integers(1, 5),
    incremental=st.booleans(),
)
def test_whatever_the_tokens_and_the_steps_nothing_is_lost_or_doubled(
    ids: list[int], step: int, incremental: bool
) -> None:
    asked = Asked(ROUTE, {}, {"rid": "r", "return_logprob": True, "top_logprobs_num": 2})
    growing = GrowingAnswer(_NOWHERE, top=2, logprobs=True)
    chunks = []
    for event in events(asked, ids, incremental=incremental, step=step):
        answer = SglangAnswer.model_validate(event)
        assert answer.meta_info is not None
        chunks.append(growing.add(answer, answer.meta_info))
    assert [id_ for chunk in chunks for id_ in chunk.token_ids] == ids
    assert [value for chunk in chunks for value in chunk.logprobs] == [-id_ / 100 for id_ in ids]
    assert [min(row) for chunk in chunks for row in chunk.top] == ids
    assert "".join(chunk.text for chunk in chunks) == "".join(f"<{id_}>" for id_ in ids)
    assert [chunk.ended for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].ended == "length"


class _Nowhere(Calls):
    """No engine: what fails, fails here."""

    def __init__(self) -> None:
        self.url = "nowhere"


_NOWHERE = _Nowhere()


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([7, 8], ([9, 8, 7], 3), "other tokens than those before"),
        ([7, 8], ([7, 8, 9, 10], 3), "got 4 token ids in an event, expected 3 or the 1 new ones"),
        ([7, 8], ([7], 1), "got 1 tokens, expected the 2 that it had streamed already"),
    ],
)
async def test_an_event_that_does_not_follow_on_those_before_is_the_engines_failure(
    first: list[int], second: tuple[list[int], int], words: str
) -> None:
    def answer(asked: Asked) -> Answer:
        return stream(
            {"output_ids": first, "meta_info": meta(asked, len(first), output_token_logprobs=entries(first))},
            {
                "output_ids": second[0],
                "meta_info": meta(asked, second[1], output_token_logprobs=entries(second[0])),
            },
        )

    async with scripted(answer) as (backend, _):
        with pytest.raises(EngineUnavailable, match=words):
            await generated(backend)


@pytest.mark.parametrize(
    ("logprobs", "words"),
    [
        (entries([9]), "of other tokens than it streamed"),
        (entries([7, 8]), "got 2 log-probabilities"),
        ([], "got 0"),
    ],
)
async def test_log_probabilities_that_are_not_those_of_the_tokens_are_the_engines_failure(
    logprobs: Any, words: str
) -> None:
    def answer(asked: Asked) -> Answer:
        return stream({"output_ids": [7], "meta_info": meta(asked, 1, output_token_logprobs=logprobs)})

    async with scripted(answer) as (backend, _):
        with pytest.raises(EngineUnavailable, match=words):
            await generated(backend)


async def test_the_answer_to_another_request_is_noticed() -> None:
    def answer(asked: Asked) -> Answer:
        return stream({"output_ids": [7], "meta_info": meta(asked, 1) | {"id": "another"}})

    async with scripted(answer) as (backend, _):
        with pytest.raises(EngineUnavailable, match="answer to request 'another'"):
            await generated(backend)


async def test_an_answer_of_another_kind_of_server_is_the_engines_failure() -> None:
    async with scripted(stream({"content": "Hi"})) as (backend, _):
        with pytest.raises(EngineUnavailable, match="without meta_info"):
            await generated(backend)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, TaskRefused), (503, EngineBusy), (500, EngineUnavailable), (None, EngineUnavailable)],
)
@pytest.mark.parametrize("form", ["error", "abort"])
async def test_an_error_in_a_stream_is_the_fault_of_whom_it_says(
    form: str, status: int | None, expected: type[Exception]
) -> None:
    def answer(asked: Asked) -> Answer:
        if form == "error":
            return stream({"error": {"message": "so it is", "type": "any", "code": status}})
        finish = {"type": "abort", "message": "so it is", "status_code": status, "err_type": None}
        return stream({"output_ids": [], "meta_info": meta(asked, 0, finish=finish)})

    async with scripted(answer) as (backend, _):
        with pytest.raises(expected, match="so it is") as caught:
            await generated(backend)
    assert caught.type is expected


@pytest.mark.parametrize(
    ("sampling", "known"),
    [
        (GREEDY, True),
        (task(dialect="native", temperature=1.0, top_k=5, max_tokens=4).sampling, True),
        (task(dialect="native", temperature=0.7, max_tokens=4).sampling, False),
        (DRAWN, False),
    ],
)
async def test_log_probabilities_after_temperature_or_a_processor_are_none(
    sampling: Sampling, known: bool
) -> None:
    async with scripted(answering([7, 8])) as (backend, _):
        chunks = await generated(backend, sampling)
    assert [math.isfinite(value) for chunk in chunks for value in chunk.logprobs] == [known] * 2


@pytest.mark.parametrize("prefix", ["/", "/get_"])
async def test_what_it_serves_is_found_under_its_new_and_its_old_routes(prefix: str) -> None:
    script = {
        "GET /v1/models": [whole({"data": [{"id": "m", "max_model_len": 2048}]})],
        f"GET {prefix}model_info": [whole({"model_path": "/models/m"})],
        f"GET {prefix}server_info": [whole({"version": "0.5.23", "max_running_requests": 48})],
    }
    async with serving(script) as server, calling(server.url) as calls:
        served = await SglangBackend(calls).served()
    assert (served.engine, served.model, served.folder) == ("sglang 0.5.23", "m", "/models/m")
    assert (served.context_length, served.slots) == (2048, 48)


async def test_an_engine_that_says_less_of_itself_is_served_all_the_same() -> None:
    models = whole({"data": [{"id": "m"}]})
    async with serving({"GET /v1/models": [models]}) as server, calling(server.url) as calls:
        backend = SglangBackend(calls)
        served = await backend.served()
        assert (served.engine, served.folder, served.slots) == ("sglang", None, None)
        assert await backend.tokenize("Hi") is None


async def test_texts_and_conversations_are_tokenized_by_the_engine() -> None:
    tokens = [whole({"tokens": [1, 2], "count": 2, "max_model_len": 9}), whole({"tokens": [3]})]
    async with serving({"POST /tokenize": tokens}) as server, calling(server.url) as calls:
        backend = SglangBackend(calls)
        assert await backend.tokenize("Hi") == (TokenId(1), TokenId(2))
        assert await backend.render(MESSAGES) == (TokenId(3),)
    assert [one.body for one in server.requests] == [
        {"prompt": "Hi", "add_special_tokens": False},
        {"messages": [{"role": "user", "content": "Hello"}]},
    ]


async def test_an_answer_that_breaks_off_is_the_engines_failure() -> None:
    def answer(asked: Asked) -> Answer:
        return stream(*events(asked, [7, 8], incremental=False, step=1)[:1], done=False, broken_off=True)

    async with scripted(answer) as (backend, _):
        with pytest.raises(EngineUnavailable, match="broke off"):
            await generated(backend)
