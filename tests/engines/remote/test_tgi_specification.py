"""The server that replays TGI's answers: it keeps to the specification, and so do our requests to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from targon.engines.remote.answers import steps
from targon.engines.remote.backend import Prompt
from targon.engines.remote.folder import DEFAULT_MODEL, ModelFolder
from targon.engines.remote.tgi import TgiBackend
from tests.engines.tasks import task

from .replaying_tgi import (
    ReplayingTgi,
    Specification,
    recordings,
    specification,
)
from .scripted_server import calling
from .tgi_backend_world import (
    MESSAGES,
    NATIVE,
    generated,
    read_with_bos,
    render,
    replaying,
)

pytestmark = [
    pytest.mark.anyio,
]


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
