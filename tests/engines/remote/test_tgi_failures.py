"""What TGI's backend makes of an engine that fails, refuses, or ends otherwise than it should."""

from __future__ import annotations

import anyio
import pytest

from targon.engines.errors import EngineBusy, EngineUnavailable, TaskRefused
from targon.engines.remote.tgi import TgiBackend
from tests.engines.tasks import task

from .replaying_tgi import (
    ReplayingTgi,
)
from .scripted_server import calling, serving, stream, whole
from .tgi_backend_world import (
    GREEDY,
    PROMPT,
    event,
    generated,
    read,
    replaying,
    scripted,
)

pytestmark = [
    pytest.mark.anyio,
]


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
