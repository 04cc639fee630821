"""A local network, and users who ask it with the client that they have: OpenAI's, ours, and the examples."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from targon.client import Client
from targon.protocol import filed

ROOT = Path(__file__).resolve().parents[2]
MODEL = "SmolLM2-135M-Instruct"
SKY: Any = [{"role": "user", "content": "Why is the sky blue?"}]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SERVED_S = 300.0
"""Until a user is answered: nobody is, before the verifier has seen its provers."""


@dataclass(frozen=True)
class Door:
    url: str
    key: str

    def client(self, **changes: Any) -> openai.OpenAI:
        arguments: dict[str, Any] = {"api_key": self.key, "timeout": 60.0, "max_retries": 8} | changes
        return openai.OpenAI(base_url=self.url, **arguments)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Where a running local network serves users, by what it prints itself."""
    flags = ["--path", str(tmp_path_factory.mktemp("users") / "net"), "--intervals", "0"]
    flags += ["--honest", "2", "--bf16", "0", "--cheats", "offline"]
    command = [sys.executable, "-m", "targon.cli", "localnet", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _when_served(process)
        finally:
            process.send_signal(signal.SIGINT)
            told, _ = process.communicate(timeout=120)
    assert "audited by what it published: exact" in told or "published nothing" in told, told


def _when_served(process: subprocess.Popen[str]) -> Door:
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("block "):
            break
    found = re.search(
        r"curl (http://127\.0\.0\.1:\d+/v1)/chat/completions -H 'Authorization: Bearer ([^']+)'",
        "".join(said),
    )
    assert found is not None, "".join(said)
    door = Door(found[1], found[2])
    deadline = time.monotonic() + SERVED_S
    with door.client() as client:
        while True:
            try:
                client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=1)
            except openai.APIError:
                assert time.monotonic() < deadline, "nobody was served"
                time.sleep(0.5)
            else:
                return door


def test_a_chat_is_answered_with_its_usage_and_a_receipt(door: Door) -> None:
    with door.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=SKY, max_tokens=16, temperature=0.8
        )
    answer = raw.parse()
    (choice,) = answer.choices
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 16 < answer.usage.prompt_tokens
    assert choice.model_extra is not None
    assert choice.model_extra["targon"]["receipt_id"] == raw.headers["targon-receipt-id"]


def test_a_stream_brings_its_text_in_pieces_and_its_receipt_at_the_end(door: Door) -> None:
    with door.client() as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=SKY, max_tokens=16, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    (last,) = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert last.choices[0].model_extra is not None
    assert len(last.choices[0].model_extra["targon"]["receipt_id"]) == 64
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("stream", [False, True])
def test_each_token_has_its_log_probability(door: Door, stream: bool) -> None:
    with door.client() as client:
        got: Any = client.chat.completions.create(
            model=MODEL, messages=SKY, max_tokens=8, logprobs=True, stream=stream
        )
        chunks = list(got) if stream else [got]
    found = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert 1 <= len(found) <= 8
    assert all(token.logprob <= 0.0 for token in found)


def test_errors_are_those_that_clients_know(door: Door) -> None:
    with (
        door.client(api_key="tg-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model=MODEL, messages=SKY)
    with door.client(max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="frequency_penalty") as refused:
            client.chat.completions.create(model=MODEL, messages=SKY, frequency_penalty=1.0)
        assert refused.value.param == "frequency_penalty"
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            client.chat.completions.create(model="no-such-model", messages=SKY)
        with pytest.raises(openai.BadRequestError) as overflowing:
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "sky " * 9_000}]
            )
        assert overflowing.value.code == "context_length_exceeded"


def test_an_answer_is_verified_and_its_receipt_is_countersigned(door: Door) -> None:
    with Client(base_url=door.url, api_key=door.key, timeout=60.0, max_retries=8) as client:
        answer = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=12, temperature=0.8)
        answer.verify()
        filed.check(client.receipt(answer.receipt.id))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(door: Door, example: Path, tmp_path: Path) -> None:
    environment = os.environ | {"TARGON_BASE_URL": door.url, "TARGON_API_KEY": door.key}
    ended = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env=environment | {"OPENAI_BASE_URL": door.url, "OPENAI_API_KEY": door.key},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
