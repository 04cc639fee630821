"""Whatever bytes an engine sends, in whatever pieces: valid steps come of them, or an engine error, and soon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.engines.errors import EngineError
from targon.engines.port import Scores, ScoreTask, Step
from targon.engines.remote.calls import Calls
from targon.engines.remote.llamacpp import LlamaCppBackend
from targon.engines.remote.openai import OpenAiBackend
from targon.engines.remote.sglang import SglangBackend
from targon.engines.remote.tgi import TgiBackend
from targon.engines.remote.vllm import VllmBackend

from .fake_vllm import (
    ASKED,
    as_event,
    engine_at,
    event,
    likely,
    model_folder,
    prompt_ids,
    scored,
    sea_ids,
    told,
)
from .raw_server import HEAD, Connection, cut, handling

WITHIN_S = 30.0
BACKENDS: dict[str, Callable[[Calls], Any]] = {
    "vllm": VllmBackend,
    "sglang": SglangBackend,
    "llama.cpp": LlamaCppBackend,
    "tgi": TgiBackend,
    "openai": lambda calls: OpenAiBackend(calls, model_folder().chat.encode_text),
}
NAMES = sorted(
    {
        "token_ids",
        "text",
        "choices",
        "usage",
        "error",
        "model",
        "logprobs",
        "finish_reason",
        "prompt_token_ids",
    }
    | {
        "token_logprobs",
        "top_logprobs",
        "prompt_tokens",
        "completion_tokens",
        "id",
        "prompt_logprobs",
        "message",
    }
    | {"tokens", "content", "stop", "stop_type", "completion_probabilities", "tokens_predicted", "truncated"}
    | {
        "output_ids",
        "meta_info",
        "output_token_logprobs",
        "token",
        "details",
        "generated_tokens",
        "delta",
        "code",
    }
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 60_000),
    st.integers(),
    st.floats(),
    st.sampled_from(["stop", "length", "eos", "limit", "SmolLM2-135M-Instruct", "The", "token_id:5"]),
    st.text(max_size=10),
)
documents = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=15,
)
places = st.lists(st.integers(0, 1 << 16), max_size=6)


@st.composite
def broken_events(draw: st.DrawFn) -> list[Any]:
    """The events of a healthy answer, of which some are changed somewhere, left out, or come twice."""
    events = json.loads(json.dumps(told()))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(events) - 1))
        what = draw(st.sampled_from(["change", "drop", "double", "replace"]))
        if what == "change":
            target = events[place]
            while isinstance(target, dict | list) and target:
                key = draw(
                    st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target)))
                )
                if not isinstance(target[key], dict | list) or not target[key] or draw(st.booleans()):
                    target[key] = draw(documents)
                    break
                target = target[key]
        elif what == "drop" and len(events) > 1:
            del events[place]
        elif what == "double":
            events.insert(place, events[place])
        else:
            events[place] = draw(documents)
    return events


def is_valid(steps: list[Step], *, ended: bool) -> bool:
    """Whether these can be the steps of an answer, of which the last is only the last where it says so."""
    ids = [step.token_id for step in steps]
    reasons = [step.finish_reason for step in steps]
    return (
        len(steps) <= ASKED.sampling.max_tokens
        and all(isinstance(id_, int) and 0 <= id_ < model_folder().vocab_size for id_ in ids)
        and all(not step.logprob > 0.0 for step in steps)
        and all(reason is None for reason in reasons[:-1])
        and (not ended or (bool(steps) and reasons[-1] is not None))
        and (not ended or (ids[-1] in model_folder().eos_ids) == (reasons[-1] == "stop"))
    )


def generated(parts: list[bytes], backend: Callable[[Calls], Any] = VllmBackend) -> list[Step]:
    """The steps of an answer; checks that they are valid whether it ends or fails."""

    async def run() -> list[Step]:
        async def handle(connection: Connection) -> None:
            if await connection.request():
                await connection.say(*parts)

        steps: list[Step] = []
        ended = False
        async with handling(handle) as url, engine_at(url, timeout_s=1.0, backend=backend) as engine:
            with anyio.fail_after(WITHIN_S):
                asked = ASKED
                if backend is BACKENDS["openai"]:
                    asked = type(ASKED)(
                        ASKED.messages, ASKED.sampling.model_copy(update={"dialect": "native"}), 0
                    )
                try:
                    async for step in engine.generate(asked):
                        steps.append(step)  # noqa: PERF401 - those before a failure count
                    ended = True
                except EngineError as error:
                    str(error).encode()
        assert is_valid(steps, ended=ended)
        return steps if ended else []

    return anyio.run(run)


@settings(deadline=None, max_examples=60)
@given(cuts=places)
def test_a_healthy_answer_is_the_same_in_any_pieces(cuts: list[int]) -> None:
    body = b"".join(map(as_event, told())) + b"data: [DONE]\n\n"
    assert tuple(step.token_id for step in generated([HEAD, *cut(body, cuts)])) == sea_ids()


@settings(deadline=None, max_examples=150)
@given(events=broken_events(), cuts=places)
def test_a_broken_answer_ends_well_or_with_an_engine_error(events: list[Any], cuts: list[int]) -> None:
    generated(cut(HEAD + b"".join(map(as_event, events)), cuts))


@pytest.mark.parametrize("name", BACKENDS)
@settings(deadline=None, max_examples=40)
@given(events=st.lists(documents | st.binary(max_size=50), max_size=4), cuts=places)
def test_random_events_end_well_or_with_an_engine_error(
    name: str, events: list[Any], cuts: list[int]
) -> None:
    generated(cut(HEAD + b"".join(map(as_event, events)), cuts), BACKENDS[name])


@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=300), start=st.sampled_from([b"", HEAD, HEAD[:20], HEAD + b"data: "]), cuts=places
)
def test_random_bytes_end_with_an_engine_error(data: bytes, start: bytes, cuts: list[int]) -> None:
    assert generated(cut(start + data, cuts)) == []


HEADERS = [
    b"",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Transfer-Encoding: chunked\r\n",
]


@settings(deadline=None, max_examples=60)
@given(
    header=st.sampled_from(
        [*HEADERS, b"Content-Length: 10\r\n", b"Content-Length: x\r\n", b"Set-Cookie: \xff\r\n"]
    ),
    status=st.sampled_from([b"200", b"100", b"204", b"302", b"400", b"999", b"-1"]),
    data=st.binary(max_size=100) | st.just(as_event(event([5], "x"))),
    cuts=places,
)
def test_random_bodies_under_any_header_end_with_an_engine_error(
    header: bytes, status: bytes, data: bytes, cuts: list[int]
) -> None:
    head = (
        b"HTTP/1.1 " + status + b" What\r\nConnection: close\r\nLocation: /elsewhere\r\n" + header + b"\r\n"
    )
    assert generated(cut(head + data, cuts)) == []


@st.composite
def broken_scores(draw: st.DrawFn) -> Any:
    """A healthy answer to a request for scores, changed somewhere."""
    body = {"prompt": [*prompt_ids(), *sea_ids()], "prompt_logprobs": 3}
    scores = json.loads(json.dumps(scored(body, likely, "SmolLM2-135M-Instruct", "cmpl-1")))
    for _ in range(draw(st.integers(0, 3))):
        target: Any = scores
        while isinstance(target, dict | list) and target:
            key = draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
            if not isinstance(target[key], dict | list) or not target[key] or draw(st.integers(0, 4)) == 0:
                change = draw(st.sampled_from(["set", "drop", "rename"]))
                value = target.pop(key) if change != "set" else None
                if change == "set":
                    target[key] = draw(documents)
                elif change == "rename" and isinstance(target, dict):
                    target[draw(st.text(max_size=5) | st.integers().map(str))] = value
                break
            target = target[key]
    return scores


@settings(deadline=None, max_examples=150)
@given(scores=broken_scores() | documents)
def test_broken_scores_are_scores_or_an_engine_error(scores: Any) -> None:
    async def run() -> list[Scores]:
        async def handle(connection: Connection) -> None:
            if await connection.request():
                await connection.answer(json.dumps(scores).encode())

        async with handling(handle) as url, engine_at(url, timeout_s=1.0) as engine:
            with anyio.fail_after(WITHIN_S):
                try:
                    return await engine.score([ScoreTask(ASKED.messages, sea_ids(), 3)])
                except EngineError as error:
                    str(error).encode()
                    return []

    for found in anyio.run(run):
        assert found.top_ids.shape == found.top_logprobs.shape == (len(sea_ids()), 3)
        assert (found.claimed_logprobs <= 1e-3).all()
        assert (found.claimed_ranks >= 0).all()
