"""Users' own client against a network of processes, on the real model: verifier with its gateway, two provers.

What it is told is checked afterwards where the user can't be lied to: by receipts, offline, and by the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest

from targon.client import Client
from targon.gateway.keys import FILE_NAME, KeyFile
from targon.ledger import Answered, Attempt
from tests.neuron_processes import Network, free_port

MODEL = "SmolLM2-135M-Instruct"
SKY: Any = [{"role": "user", "content": "Why is the sky blue?"}]
READY_S = 240.0


@dataclass
class World:
    network: Network
    url: str
    key: str
    keys: KeyFile

    def client(self, key: str = "") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key or self.key, timeout=90.0, max_retries=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, engine_socket: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("net")
    network = Network(folder, ["--engine.socket", str(engine_socket)])
    network.enrol("verifier", stake=10_000.0)
    for name in ("first", "second"):
        network.enrol(name)
    port = free_port()
    (folder / "verifier").mkdir()
    keys = KeyFile(folder / "verifier" / FILE_NAME)
    _, key = keys.create("tester", now=int(time.time()))
    with (
        network.prover("first", free_port()),
        network.prover("second", free_port()),
        network.verifier("--gateway.port", str(port)) as verifier,
    ):
        world = World(network, f"http://127.0.0.1:{port}/v1", key, keys)
        deadline = time.monotonic() + READY_S
        while not _serves(world):
            assert verifier.poll() is None, _said(network)
            assert time.monotonic() < deadline, _said(network)
            time.sleep(0.5)
        yield world
    keys.close()


def _serves(world: World) -> bool:
    """Whether somebody answers: the verifier must have seen its provers first."""
    try:
        with world.client() as client:
            client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=1)
    except (openai.APIConnectionError, openai.APIStatusError):
        return False
    return True


def _said(network: Network) -> str:
    return "\n".join(path.read_text()[-2000:] for path in network.folder.glob("*.out"))


def logged(network: Network, receipt_id: str) -> bool:
    """Whether the log holds an answer by its receipt's id."""
    events = anyio.run(network.events)
    return any(
        isinstance(event, Answered)
        and isinstance(attempt := events[event.attempt], Attempt)
        and attempt.request_digest == receipt_id
        for event in events
    )


def receipt_of(choice: object) -> str:
    """The receipt's id, which the client keeps as it keeps all that it doesn't know."""
    note = getattr(choice, "targon", None)
    assert isinstance(note, dict)
    return str(note["receipt_id"])


def test_the_models_are_those_that_provers_serve(world: World) -> None:
    with world.client() as client:
        assert [model.id for model in client.models.list()] == [MODEL]


def test_a_chat_answer_is_in_the_log_when_the_user_has_it(world: World) -> None:
    with world.client() as client:
        answer = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=12, temperature=0)
    (choice,) = answer.choices
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12
    assert logged(world.network, receipt_of(choice))


def test_a_stream_says_what_the_whole_answer_says(world: World) -> None:
    with world.client() as client:
        whole = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=12, temperature=0)
        stream = client.chat.completions.create(
            model=MODEL,
            messages=SKY,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    last = [chunk for chunk in chunks if chunk.choices][-1]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert logged(world.network, receipt_of(last.choices[0]))


def test_log_probabilities_come_with_each_token(world: World) -> None:
    with world.client() as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=SKY, max_tokens=8, temperature=0, logprobs=True
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert answer.usage is not None
    content = logprobs.content or []
    assert len(content) == answer.usage.completion_tokens
    assert all(token.logprob <= 0.0 for token in content)


def test_several_answers_have_a_receipt_each(world: World) -> None:
    with world.client() as client:
        answer = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=6, n=2)
    receipts = [receipt_of(choice) for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert len(set(receipts)) == 2
    assert all(logged(world.network, receipt) for receipt in receipts)


def test_a_plain_completion_is_served_too(world: World) -> None:
    with world.client() as client:
        answer = client.completions.create(model=MODEL, prompt="Name three rivers.", max_tokens=8)
    assert answer.choices[0].text


def test_what_cannot_be_served_is_refused_by_name(world: World) -> None:
    with world.client() as client:
        with pytest.raises(openai.BadRequestError, match="presence_penalty"):
            client.chat.completions.create(model=MODEL, messages=SKY, presence_penalty=1.0)
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            client.chat.completions.create(model="no-such-model", messages=SKY)
        with pytest.raises(openai.BadRequestError, match="8192"):
            client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=8_192)


def test_a_wrong_key_and_a_revoked_one_are_turned_away(world: World) -> None:
    key, secret = world.keys.create("short-lived", now=int(time.time()))
    with world.client("sk-targon-" + "0" * 48) as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with world.client(secret) as client:
        _until(lambda: _is_let_in(client), "a new key is not let in")
        world.keys.revoke(key.id, now=int(time.time()))
        _until(lambda: not _is_let_in(client), "a revoked key is still let in")


def _until(holds: Callable[[], bool], complaint: str) -> None:
    """A running gateway knows of a change within seconds."""
    deadline = time.monotonic() + 120.0
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)


def _is_let_in(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError:
        return False
    return True


def test_an_answer_is_verified_offline_by_whoever_got_it(world: World) -> None:
    with Client(base_url=world.url, api_key=world.key, timeout=90.0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=SKY, max_tokens=12, temperature=0.8)
    answer.verify()
    assert logged(world.network, receipt_of(answer.choices[0]))
