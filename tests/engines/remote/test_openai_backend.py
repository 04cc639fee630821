"""The backend of plain OpenAI endpoints: text only."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from targon.engines.errors import EngineBusy, EngineError, EngineUnavailable, TaskRefused
from targon.engines.remote.backend import Chunk, Prompt
from targon.engines.remote.openai import OpenAiBackend
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId
from tests.engines.tasks import task

from .scripted_server import Answer, ScriptedServer, calling, serving, stream, whole

pytestmark = pytest.mark.anyio

PROMPT = Prompt((ChatMessage(role="user", content="Hello"),), "", ())
ROUTE = "POST /v1/chat/completions"


def encode(text: str) -> tuple[TokenId, ...]:
    """A token for each letter."""
    return tuple(TokenId(ord(letter)) for letter in text)


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[tuple[OpenAiBackend, ScriptedServer]]:
    async with serving({ROUTE: [answer]}) as server, calling(server.url) as calls:
        yield OpenAiBackend(calls, encode), server


def native(max_tokens: int = 16, **more: object) -> Sampling:
    return task(dialect="native", max_tokens=max_tokens, **more).sampling


async def generated(backend: OpenAiBackend, sampling: Sampling | None = None) -> list[Chunk]:
    return [chunk async for chunk in backend.generate("m", PROMPT, sampling or native(), 2**63 + 5)]


def event(content: str | None = None, *, ended: str | None = None, model: str = "m") -> object:
    delta = {} if content is None else {"content": content}
    return {"model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": ended}]}


async def test_the_conversation_is_asked_for_as_the_endpoint_wants_it() -> None:
    async with scripted(stream(event("a", ended="stop"))) as (backend, server):
        await generated(backend, native(7, temperature=0.7, top_p=0.9))
    assert server.requests[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 7,
        "stream": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
    }


@pytest.mark.parametrize("ended", ["stop", "length"])
async def test_each_piece_of_text_becomes_the_tokens_of_the_models_tokenizer(ended: str) -> None:
    answer = stream(event(""), event("Hi"), event("!"), event(ended=ended), {"choices": [], "usage": {}})
    async with scripted(answer) as (backend, _):
        chunks = await generated(backend)
    assert [chunk.token_ids for chunk in chunks] == [(), encode("Hi"), encode("!"), (), ()]
    assert all(len(chunk.logprobs) == len(chunk.token_ids) for chunk in chunks)
    assert all(math.isnan(value) for chunk in chunks for value in chunk.logprobs)
    assert [chunk.ended for chunk in chunks if chunk.ended] == [ended]


async def test_no_more_tokens_are_given_than_were_asked_for() -> None:
    async with scripted(stream(event("abc"), event("def"), event(ended="stop"))) as (backend, _):
        chunks = await generated(backend, native(5))
    assert sum((chunk.token_ids for chunk in chunks), ()) == encode("abcde")
    assert chunks[-1].ended == "length"


async def test_an_answer_that_is_just_as_long_as_asked_for_ends_as_the_endpoint_says() -> None:
    async with scripted(stream(event("abc"), event(ended="stop"))) as (backend, _):
        chunks = await generated(backend, native(3))
    assert [chunk.ended for chunk in chunks] == [None, "stop"]


@pytest.mark.parametrize(("said", "reported"), [("m", "m"), ("m-2024-08-06", "m"), ("another", "another")])
async def test_a_models_revision_goes_by_its_short_name(said: str, reported: str) -> None:
    async with scripted(stream(event("a", ended="stop", model=said))) as (backend, _):
        assert [chunk.model for chunk in await generated(backend)] == [reported]


@pytest.mark.parametrize("dialect", ["targon/1", "greedy", "vllm"])
async def test_only_native_work_can_be_had(dialect: str) -> None:
    async with scripted(stream()) as (backend, server):
        temperature = 0.0 if dialect == "greedy" else 0.8
        with pytest.raises(TaskRefused, match=f"got '{dialect}', expected 'native'"):
            await generated(backend, task(dialect=dialect, temperature=temperature).sampling)
        with pytest.raises(TaskRefused, match="top_k: got 40"):
            await generated(backend, native(top_k=40))
        with pytest.raises(TaskRefused, match="be no reference"):
            await backend.prompt_logprobs("m", (1, 2), 5)
    assert server.requests == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "so it is", "code": 400}, TaskRefused),
        ({"message": "so it is", "code": 429}, EngineBusy),
        ({"message": "so it is", "code": "server_error"}, EngineUnavailable),
        ({"message": "so it is"}, EngineUnavailable),
    ],
)
async def test_an_error_in_a_stream_is_the_fault_of_whom_it_says(
    error: object, expected: type[Exception]
) -> None:
    async with scripted(stream(event("a"), {"error": error})) as (backend, _):
        with pytest.raises(expected, match="so it is") as caught:
            await generated(backend)
    assert caught.type is expected


@pytest.mark.parametrize(
    ("status", "expected"), [(400, TaskRefused), (429, EngineBusy), (500, EngineUnavailable)]
)
async def test_an_answer_by_status_is_the_fault_of_whom_it_says(
    status: int, expected: type[Exception]
) -> None:
    answer = whole({"error": {"message": "so it is"}}, status=status)
    async with scripted(answer) as (backend, _):
        with pytest.raises(expected, match="so it is") as caught:
            await generated(backend)
    assert caught.type is expected


@pytest.mark.parametrize("code", [400, 429, 500])
async def test_an_error_in_a_stream_never_repeats_our_key(code: int) -> None:
    script = {ROUTE: [stream({"error": {"message": "no sk-31415926 here", "code": code}})]}
    async with serving(script) as server, calling(server.url, key="sk-31415926") as calls:
        with pytest.raises(EngineError, match=r"no \(the key\) here"):
            await generated(OpenAiBackend(calls, encode))


async def test_an_answer_that_is_filtered_is_no_answer() -> None:
    async with scripted(stream(event("a", ended="content_filter"))) as (backend, _):
        with pytest.raises(EngineUnavailable, match="'content_filter', expected 'stop' or 'length'"):
            await generated(backend)


async def test_an_answer_that_breaks_off_is_the_engines_failure() -> None:
    async with scripted(stream(event("a"), done=False, broken_off=True)) as (backend, _):
        with pytest.raises(EngineUnavailable, match="broke off"):
            await generated(backend)


async def test_its_models_are_known_by_name_and_nothing_else_is() -> None:
    models = whole({"data": [{"id": "m"}, {"id": "n"}]})
    async with serving({"GET /v1/models": [models]}) as server, calling(server.url) as calls:
        backend = OpenAiBackend(calls, encode)
        served = await backend.served()
        assert (served.model, served.models, served.context_length) == ("m", ("m", "n"), None)
        assert await backend.render(PROMPT.messages) is None
        assert await backend.tokenize("a") is None
