"""The backend of Text Generation Inference, against real servers' answers and their own specification."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.engines.errors import EngineBusy, EngineUnavailable, TaskRefused
from targon.engines.remote.answers import steps
from targon.engines.remote.backend import Chunk, Prompt
from targon.engines.remote.folder import DEFAULT_MODEL, ModelFolder
from targon.engines.remote.tgi import TgiBackend, _sampler
from targon.protocol.messages import ChatMessage, Sampling
from tests.engines.tasks import task

from .replaying_tgi import (
    PREFILL_LOGPROB,
    Read,
    ReplayingTgi,
    Specification,
    recordings,
    specification,
)
from .scripted_server import ScriptedServer, calling, listening, serving, stream, whole

pytestmark = [
    pytest.mark.anyio,
]

BOS = 1
MESSAGES = (ChatMessage(role="user", content="Hello"),)
PROMPT = Prompt(MESSAGES, "<s>Hello", (BOS, *map(ord, "Hello")))
GREEDY = task(dialect="greedy", temperature=0.0, max_tokens=4).sampling
NATIVE = task(dialect="native", temperature=0.7, top_p=0.9, top_k=40, max_tokens=4).sampling


def read(text: str) -> list[Read]:
    """A tokenizer of letters, to which ``<s>`` is one."""
    return [
        Read(BOS if one.group() == "<s>" else ord(one.group()), one.group(), *one.span())
        for one in re.finditer(r"<s>|.", text)
    ]


def read_with_bos(text: str) -> list[Read]:
    """The same, as most tokenizers of the Llama family do it: a ``<s>`` in front of every text."""
    return [Read(BOS), *read(text)]


def render(turns: list[dict[str, str]]) -> str:
    return "<s>" + "".join(turn["content"] for turn in turns)


@asynccontextmanager
async def replaying(server: ReplayingTgi) -> AsyncIterator[TgiBackend]:
    async with listening(server.app()) as url, calling(url) as calls:
        yield TgiBackend(calls)


@asynccontextmanager
async def scripted(*answers: object) -> AsyncIterator[tuple[TgiBackend, ScriptedServer]]:
    """A server that reads the prompt as it should, and streams what a test says."""
    tokens = whole([one._asdict() for one in read(PROMPT.text)])
    script = {
        "POST /tokenize": [tokens],
        "POST /generate_stream": [stream(*answers, done=False)],
    }
    async with serving(script) as server, calling(server.url) as calls:
        yield TgiBackend(calls), server


async def generated(backend: TgiBackend, sampling: Sampling = GREEDY, *, top: int = 0) -> list[Chunk]:
    return [chunk async for chunk in backend.generate("m", PROMPT, sampling, 5, top=top)]


def event(id_: int = 300, *, text: str = " x", special: bool = False, ended: str | None = None) -> object:
    details = {"finish_reason": ended, "generated_tokens": 1, "input_length": 6, "seed": None}
    return {
        "index": 1,
        "token": {"id": id_, "text": text, "logprob": -0.5, "special": special},
        "generated_text": text if ended else None,
        "details": details if ended else None,
    }


async def test_requests_and_the_replayed_answers_are_those_of_the_specification() -> None:
    server = ReplayingTgi(read_with_bos, render=render, added=1)
    async with replaying(server) as backend:
        await backend.served()
        await backend.render(MESSAGES)
        await backend.tokenize("Hello")
        await generated(backend)
        await generated(backend, NATIVE, top=3)
        await backend.prefill_logprobs("Hello")
    assert {route for route, _ in server.requests} == {
        "/chat_tokenize",
        "/tokenize",
        "/generate",
        "/generate_stream",
    }
    assert {name for name, _ in server.answers} == {
        "Info",
        "TokenizeResponse",
        "ChatTokenizeResponse",
        "GenerateResponse",
        "StreamResponse",
    }
    assert [server.specification.wrong(value, name) for name, value in server.answers] == [[]] * len(
        server.answers
    )


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


async def test_a_request_beyond_its_limit_is_the_askers_fault() -> None:
    async with replaying(ReplayingTgi(read)) as backend:
        with pytest.raises(TaskRefused, match="must be <= 2048"):
            await generated(backend, task(dialect="greedy", temperature=0.0, max_tokens=2048).sampling)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("validation", TaskRefused),
        ("template_error", TaskRefused),
        ("overloaded", EngineBusy),
        ("generation", EngineUnavailable),
        ("incomplete_generation_stream", EngineUnavailable),
        ("anything", EngineUnavailable),
    ],
)
async def test_an_error_in_a_stream_is_the_fault_of_whom_it_says(
    kind: str, expected: type[Exception]
) -> None:
    async with scripted(event(), {"error": "so it is", "error_type": kind}) as (backend, _):
        with pytest.raises(expected, match="so it is") as caught:
            await generated(backend)
    assert caught.type is expected


async def test_an_error_event_is_understood_with_its_name_in_front() -> None:
    parts = [b"event: error\n", b'data:{"error": "full", "error_type": "overloaded"}\n\n']
    tokens = [whole([one._asdict() for one in read(PROMPT.text)])]
    answer = stream(done=False)
    script = {
        "POST /tokenize": tokens,
        "POST /generate_stream": [type(answer)(200, answer.headers, parts)],
    }
    async with serving(script) as server, calling(server.url) as calls:
        with pytest.raises(EngineBusy, match="full"):
            await generated(TgiBackend(calls))


@pytest.mark.parametrize(
    ("status", "expected"), [(422, TaskRefused), (424, EngineUnavailable), (429, EngineBusy)]
)
async def test_an_answer_by_status_is_the_fault_of_whom_it_says(
    status: int, expected: type[Exception]
) -> None:
    answer = whole({"error": "so it is", "error_type": "any"}, status=status)
    async with serving({"POST /generate": [answer]}) as server, calling(server.url) as calls:
        with pytest.raises(expected, match="so it is") as caught:
            await TgiBackend(calls).prefill_logprobs("Hello")
    assert caught.type is expected


async def test_an_answer_ends_with_the_end_of_sequence_token_whose_text_is_not_the_answers() -> None:
    async with scripted(event(), event(2, text="</s>", special=True, ended="eos_token")) as (backend, _):
        chunks = await generated(backend)
    assert [chunk.token_ids for chunk in chunks] == [(300,), (2,)]
    assert "".join(chunk.text for chunk in chunks) == " x"
    assert chunks[-1].ended == "stop"


async def test_an_engine_that_stops_at_a_string_of_its_own_fails() -> None:
    async with scripted(event(ended="stop_sequence")) as (backend, _):
        with pytest.raises(EngineUnavailable, match="asked for no stop sequences"):
            await generated(backend)


async def test_an_event_without_a_token_is_the_engines_failure() -> None:
    async with scripted({"index": 1}) as (backend, _):
        with pytest.raises(EngineUnavailable, match="without a token"):
            await generated(backend)


async def test_an_unhealthy_engine_serves_nothing() -> None:
    down = whole({"error": "unhealthy", "error_type": "healthcheck"}, status=503)
    async with serving({"GET /health": [down]}) as server, calling(server.url) as calls:
        with pytest.raises(EngineUnavailable, match="isn't healthy") as caught:
            await TgiBackend(calls).served()
    assert caught.type is EngineUnavailable


async def test_leaving_an_answer_early_tells_the_engine() -> None:
    script = {
        "POST /tokenize": [whole([one._asdict() for one in read(PROMPT.text)])],
        "POST /generate_stream": [stream(*[event()] * 100, delay_s=0.01)],
    }
    async with serving(script) as server, calling(server.url) as calls:
        chunks = TgiBackend(calls).generate("m", PROMPT, GREEDY, 5)
        await anext(chunks)
        await chunks.aclose()
        with anyio.fail_after(60):
            while not server.left_early:
                await anyio.sleep(0.01)


async def test_the_process_serves_prompts_and_texts_of_the_default_model() -> None:
    command = [sys.executable, "-m", "tests.engines.remote.replaying_tgi", "--port", "0"]
    root = Path(__file__).parents[3]
    folder = ModelFolder.open(DEFAULT_MODEL)
    text = folder.chat.render(MESSAGES)
    prompt = Prompt(MESSAGES, text, folder.chat.encode_text(text))
    async with await anyio.open_process(command, cwd=root, stdout=subprocess.PIPE, stderr=None) as process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(180):
                url = (await process.stdout.receive()).decode().strip()
            async with calling(url) as calls:
                backend = TgiBackend(calls)
                served = await backend.served()
                assert await backend.render(MESSAGES) == prompt.token_ids
                sampling = task(dialect="greedy", temperature=0.0, max_tokens=30).sampling
                answer = [step async for step in steps(backend, served.model, folder, prompt, sampling, 0)]
        finally:
            process.kill()
    recorded = recordings()["test_flash_llama_simple"]["details"]["tokens"]
    assert [step.token_id for step in answer] == [token["id"] for token in recorded] * 3


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("GenerateRequest", {}, "GenerateRequest.inputs: got none"),
        ("GenerateRequest", {"inputs": "a", "max_tokens": 4}, "GenerateRequest.max_tokens: got it"),
        ("GenerateRequest", {"inputs": 4}, "GenerateRequest.inputs: got 4, expected string"),
        ("GenerateParameters", {"temperature": 0.0}, "expected more than 0"),
        ("GenerateParameters", {"top_p": 1.5}, "expected at most 1"),
        ("GenerateParameters", {"details": None}, "expected boolean"),
        ("GenerateParameters", {"stop": ["a"] * 5}, "got 5 items, expected at most 4"),
        ("Details", {"finish_reason": "eos"}, "expected one of ['length', 'eos_token', 'stop_sequence']"),
        ("ChatRequest", {"messages": [{"role": "user"}]}, "expected one of 2 forms"),
    ],
)
def test_the_specification_finds_what_is_wrong(name: str, value: object, wrong: str) -> None:
    assert any(wrong in one for one in specification().wrong(value, name))


def test_the_specification_has_nothing_against_what_may_be_null_or_left_out() -> None:
    assert isinstance(specification(), Specification)
    parameters = {"temperature": None, "grammar": None, "top_p": 1.0}
    assert specification().wrong({"inputs": "", "parameters": parameters}, "GenerateRequest") == []
    recorded = json.loads(json.dumps(recordings()["test_flash_llama_simple"]))
    del recorded["details"]["top_tokens"]  # recorded as null, which the specification doesn't allow
    assert specification().wrong(recorded, "GenerateResponse") == []
