"""The backend of Text Generation Inference, against real servers' answers and their own specification."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.remote.backend import Prompt
from targon.engines.remote.tgi import TgiBackend, _sampler
from targon.protocol.messages import Sampling
from tests.engines.tasks import task

from .replaying_tgi import (
    PREFILL_LOGPROB,
    Read,
    ReplayingTgi,
    recordings,
    specification,
)
from .scripted_server import calling, serving, whole
from .tgi_backend_world import (
    BOS,
    GREEDY,
    MESSAGES,
    PROMPT,
    generated,
    read,
    read_with_bos,
    render,
    replaying,
)

pytestmark = [
    pytest.mark.anyio,
]


@pytest.mark.parametrize("name", recordings())
async def test_each_recorded_answer_is_streamed_token_by_token(name: str) -> None:
    recorded = recordings()[name]["details"]["tokens"]
    sampling = task(dialect="greedy", temperature=0.0, max_tokens=len(recorded)).sampling
    async with replaying(ReplayingTgi(read, recording=name)) as backend:
        chunks = await generated(backend, sampling)
    assert [chunk.token_ids for chunk in chunks] == [(token["id"],) for token in recorded]
    assert [chunk.logprobs for chunk in chunks] == [(token["logprob"],) for token in recorded]
    assert "".join(chunk.text for chunk in chunks) == "".join(token["text"] for token in recorded)
    assert [chunk.ended for chunk in chunks] == [None] * (len(recorded) - 1) + ["length"]
    assert chunks[-1].completion_tokens == len(recorded)
    assert chunks[-1].prompt_tokens == len(PROMPT.token_ids)


async def test_what_it_serves_is_what_info_says() -> None:
    async with replaying(ReplayingTgi(read)) as backend:
        served = await backend.served()
    assert (served.engine, served.model) == ("tgi 0.5.0", "SmolLM2-135M-Instruct")
    assert (served.context_length, served.slots) == (2048, 128)


async def test_a_token_that_the_engine_would_double_is_taken_off_the_text_and_that_is_learnt_once() -> None:
    server = ReplayingTgi(read_with_bos)
    async with replaying(server) as backend:
        await generated(backend)
        chunks = await generated(backend)
    assert [body["inputs"] for route, body in server.requests if route == "/generate_stream"] == ["Hello"] * 2
    assert [body["inputs"] for route, body in server.requests if route == "/tokenize"] == [
        "<s>Hello",
        "Hello",
    ]
    assert chunks[-1].prompt_tokens == len(PROMPT.token_ids)


async def test_the_text_goes_as_it_is_to_an_engine_that_adds_nothing() -> None:
    server = ReplayingTgi(read)
    async with replaying(server) as backend:
        await generated(backend)
    assert server.requests[-1][1]["inputs"] == PROMPT.text


@pytest.mark.parametrize(
    ("reads", "first"),
    [
        (lambda text: read(text.lower()), "at position 1 got [104, 101, 108]"),
        (lambda text: [Read(2), *read(text)], "at position 0 got [2, 1, 72]"),
        (lambda text: [*read(text), Read(2)], "at position 6 got [2], expected []"),
        (
            lambda text: [Read(BOS), *(one._replace(text="") for one in read(text))],
            "got 7 tokens, expected 6",
        ),
    ],
    ids=["another tokenizer", "another start", "an end", "no texts to tell by"],
)
async def test_an_engine_that_reads_the_prompt_otherwise_is_named_with_the_first_difference(
    reads: object, first: str
) -> None:
    async with replaying(ReplayingTgi(reads)) as backend:
        with pytest.raises(EngineUnavailable, match=re.escape(first)):
            await generated(backend)


async def test_without_tokenize_nothing_is_generated() -> None:
    async with serving({}) as server, calling(server.url) as calls:
        with pytest.raises(EngineUnavailable, match="no /tokenize"):
            await generated(TgiBackend(calls))


async def test_a_prompt_without_the_doubled_start_is_not_sent() -> None:
    async with replaying(ReplayingTgi(read_with_bos)) as backend:
        await generated(backend)
        other = Prompt(MESSAGES, "Hello", PROMPT.token_ids[1:])
        with pytest.raises(EngineUnavailable, match="begins with 'Hello'"):
            await anext(backend.generate("m", other, GREEDY, 5))


@pytest.mark.parametrize("reads", [read, read_with_bos])
async def test_a_text_is_tokenized_with_nothing_added(reads: object) -> None:
    async with replaying(ReplayingTgi(reads)) as backend:
        assert await backend.tokenize("<s>Hi") == (BOS, ord("H"), ord("i"))


async def test_conversations_are_rendered_by_the_engines_template_or_not_at_all() -> None:
    async with replaying(ReplayingTgi(read_with_bos, render=render, added=1)) as backend:
        assert await backend.render(MESSAGES) == PROMPT.token_ids
    async with replaying(ReplayingTgi(read_with_bos)) as backend:
        assert await backend.render(MESSAGES) is None


@pytest.mark.parametrize("route", ["/tokenize", "/chat_tokenize"])
async def test_tokens_that_are_none_are_the_engines_failure(route: str) -> None:
    nonsense = [whole({"tokenize_response": [{"id": "a"}]} if "chat" in route else [{"id": None}])]
    async with serving({f"POST {route}": nonsense}) as server, calling(server.url) as calls:
        backend = TgiBackend(calls)
        with pytest.raises(EngineUnavailable, match=re.escape(f"{route} cannot be read")):
            await (backend.render(MESSAGES) if "chat" in route else backend.tokenize("a"))


async def test_greedy_work_names_no_parameter_that_would_make_it_sample() -> None:
    server = ReplayingTgi(read)
    async with replaying(server) as backend:
        await generated(backend)
    assert server.requests[-1][1]["parameters"] == {
        "max_new_tokens": 4,
        "details": True,
        "do_sample": False,
    }


@settings(deadline=None)
@given(
    temperature=st.just(0.0) | st.floats(0.05, 10.0),
    top_p=st.floats(0.0, 1.0, exclude_min=True),
    top_k=st.integers(0, 2**31 - 1),
    run_key=st.integers(0, 2**64 - 1),
)
def test_any_native_sampling_is_one_that_the_router_takes(
    temperature: float, top_p: float, top_k: int, run_key: int
) -> None:
    sampling = task(dialect="native", temperature=temperature, top_p=top_p, top_k=top_k).sampling
    parameters = _sampler(sampling, run_key)
    assert specification().wrong(parameters, "GenerateParameters") == []
    assert parameters.get("top_p", 0.5) < 1.0
    assert parameters["do_sample"] == ("temperature" in parameters) == (temperature > 0.0)


async def test_another_sampler_is_refused_by_name() -> None:
    async with replaying(ReplayingTgi(read)) as backend:
        with pytest.raises(TaskRefused, match="got 'targon/1', expected 'greedy' or 'native'"):
            await generated(backend, task().sampling)


@pytest.mark.parametrize(
    ("sampling", "known"),
    [
        (GREEDY, True),
        (task(dialect="native", temperature=1.0, max_tokens=4).sampling, True),
        (task(dialect="native", temperature=0.7, max_tokens=4).sampling, False),
        (task(dialect="native", temperature=1.0, top_p=0.9, max_tokens=4).sampling, False),
        (task(dialect="native", temperature=1.0, top_k=9, max_tokens=4).sampling, False),
    ],
)
async def test_log_probabilities_after_temperature_and_cuts_are_none(sampling: Sampling, known: bool) -> None:
    async with replaying(ReplayingTgi(read)) as backend:
        chunks = await generated(backend, sampling, top=2)
    assert all(math.isfinite(chunk.logprobs[0]) == known for chunk in chunks)
    assert all(bool(chunk.top) == known for chunk in chunks)


async def test_it_scores_no_given_tokens_but_tells_how_likely_a_texts_own_were() -> None:
    async with replaying(ReplayingTgi(read_with_bos)) as backend:
        with pytest.raises(TaskRefused, match="be no reference"):
            await backend.prompt_logprobs("m", PROMPT.token_ids, 5)
        found = await backend.prefill_logprobs("Hi")
    assert found == ((BOS, None), (ord("H"), PREFILL_LOGPROB), (ord("i"), PREFILL_LOGPROB))
