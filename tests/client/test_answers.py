"""Honest answers verify, however they were asked for; and all else is OpenAI's client."""

from __future__ import annotations

from typing import Any

import anyio
import openai
import pytest

from targon.client import AsyncClient, ChatAnswer, Client, Expected, NotVerified, TextAnswer
from targon.verification import check_answer, read_answers
from tests.client.gateway import MODEL_DIGEST, PROVER, VERIFIER, Gateway
from tests.tiny_engine import TinyEngine

ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 12}


# -- whole answers -------------------------------------------------------------------------------------------


def test_a_whole_answer_verifies_and_is_openai_s_own_type(client: Client) -> None:
    answer = client.chat.completions.create(**ASK)
    answer.verify()
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    assert isinstance(answer, ChatAnswer)
    assert answer.choices[0].message.content


def test_the_receipt_says_who_answered_whom_with_what(client: Client) -> None:
    receipt = client.chat.completions.create(**ASK).receipt
    assert (receipt.prover, receipt.verifier) == (PROVER.ss58_address, VERIFIER.ss58_address)
    assert (receipt.model, receipt.model_digest, receipt.block) == ("tiny", MODEL_DIGEST, 77)
    assert receipt.id == receipt.request.digest() == receipt.signed.body.request_digest
    assert receipt.replayable
    assert receipt.attempt >= 0
    assert receipt.issued_at > 1_700_000_000


def test_several_answers_have_a_receipt_each(client: Client) -> None:
    answer = client.chat.completions.create(**ASK, n=3)
    answer.verify()
    assert len({receipt.id for receipt in answer.receipts}) == 3
    assert [receipt.request.sampling.choice for receipt in answer.receipts] == [0, 1, 2]
    assert answer.receipt == answer.receipts[0]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9},
        {"extra_body": {"top_k": 5}},
        {"stop": "e"},
        {"stop": ["e", "q"]},
        {"seed": 7, "user": "me", "metadata": {"a": "b"}},
        {"logprobs": True},
        {
            "frequency_penalty": 0,
            "presence_penalty": 0.0,
            "logit_bias": {},
            "response_format": {"type": "text"},
        },
        {"max_tokens": openai.omit, "max_completion_tokens": 5},
        {"max_tokens": openai.omit},
    ],
)
def test_answers_verify_with_whatever_can_be_asked(client: Client, options) -> None:
    client.chat.completions.create(**ASK | options).verify()


def test_developer_messages_and_messages_in_parts_are_what_they_become(client: Client) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Why"}, {"type": "text", "text": "is it? 👋"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "So?"},
    ]
    answer = client.chat.completions.create(**ASK | {"messages": messages})
    answer.verify()
    asked = [(message.role, message.content) for message in answer.receipt.request.messages]
    assert asked[:2] == [("system", "Be brief."), ("user", "Why\nis it? 👋")]


def test_lists_that_change_after_the_question_do_no_harm(client: Client) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    stop = ["e"]
    answer = client.chat.completions.create(**ASK | {"messages": messages}, extra_body={"stop": stop})
    messages += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "And?"}]
    messages[0]["content"] = "changed"
    stop.append("a")
    answer.verify()


def test_the_older_completions_verify_too(client: Client) -> None:
    answer = client.completions.create(model="tiny", prompt=["one", "two"], n=2, logprobs=0)
    answer.verify()
    assert isinstance(answer, TextAnswer)
    assert [receipt.request.messages[0].content for receipt in answer.receipts] == [
        "one",
        "one",
        "two",
        "two",
    ]
    assert {receipt.request.sampling.max_tokens for receipt in answer.receipts} == {16}


# -- streams -------------------------------------------------------------------------------------------------


def test_a_stream_verifies_at_its_end(client: Client) -> None:
    stream = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    stream.verify()
    assert text == stream.receipt.response.completion.text


def test_a_stream_of_several_answers_verifies(client: Client) -> None:
    stream = client.chat.completions.create(**ASK, n=3, stream=True, logprobs=True)
    list(stream)
    stream.verify()
    assert len(stream.receipts) == 3


def test_a_stream_of_the_older_completions_verifies(client: Client) -> None:
    stream = client.completions.create(model="tiny", prompt="one", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == stream.receipt.response.completion.text
    stream.verify()


def test_a_stream_that_was_not_read_to_its_end_has_no_receipt_yet(client: Client) -> None:
    stream = client.chat.completions.create(**ASK, stream=True)
    next(stream)
    for look in (stream.verify, lambda: stream.receipt):
        with pytest.raises(NotVerified, match="answer: got one that has no end") as caught:
            look()
    assert "read the stream to its end" in caught.value.diagnostics()
    stream.close()


def test_openai_s_helper_for_streams_works_as_it_does(client: Client) -> None:
    with client.chat.completions.stream(**ASK) as events:
        kinds = {event.type for event in events}
    assert {"chunk", "content.delta", "content.done"} <= kinds


# -- at once, by the asynchronous client ---------------------------------------------------------------------


@pytest.mark.anyio
async def test_many_answers_at_once_verify(async_client: AsyncClient) -> None:
    verified = []

    async def ask(number: int) -> None:
        messages = [{"role": "user", "content": f"number {number}"}]
        answer = await async_client.chat.completions.create(**ASK | {"messages": messages})
        answer.verify(verifier=VERIFIER.ss58_address)
        verified.append(answer.receipt.id)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(ask, number)
    assert len(set(verified)) == 20


@pytest.mark.anyio
async def test_an_asynchronous_stream_verifies_at_its_end(async_client: AsyncClient) -> None:
    stream = await async_client.chat.completions.create(**ASK, n=2, stream=True)
    async for _ in stream:
        pass
    stream.verify()
    older = await async_client.completions.create(model="tiny", prompt="one", stream=True)
    with pytest.raises(NotVerified, match="no end"):
        older.verify()
    assert [chunk async for chunk in older]
    older.verify()
    whole = await async_client.completions.create(model="tiny", prompt="one")
    whole.verify()


@pytest.mark.anyio
async def test_the_asynchronous_client_asks_for_statements(async_client: AsyncClient) -> None:
    answer = await async_client.with_options(max_retries=1).chat.completions.create(**ASK)
    statement = await async_client.receipt(answer.receipt)
    assert statement.receipt_id == answer.receipt.id


# -- what else OpenAI's client does --------------------------------------------------------------------------


def test_raw_responses_parse_to_answers_that_verify(client: Client) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASK)
    assert raw.http_response.status_code == 200
    raw.parse().verify()
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        response.parse().verify()


def test_parse_and_models_work_as_they_do(client: Client) -> None:
    parsed = client.chat.completions.parse(**ASK | {"stop": ["e", "t", "a", "o"], "max_tokens": 400})
    assert parsed.choices[0].finish_reason == "stop"
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_an_answer_shows_nothing_of_ours_when_it_is_dumped(client: Client) -> None:
    answer = client.chat.completions.create(**ASK)
    assert "_exchange" not in answer.model_dump()
    assert "_exchange" not in answer.model_dump_json()
    assert answer.model_copy().receipt == answer.receipt


def test_every_question_for_an_answer_asks_for_the_whole_receipt_and_no_other_does(
    client: Client, gateway: Gateway
) -> None:
    client.chat.completions.create(**ASK)
    client.completions.create(model="tiny", prompt="x")
    client.models.list()
    assert [headers.get("targon-receipt") for headers, _ in gateway.asked] == ["full", "full", None]


def test_an_expectation_of_the_client_holds_for_copies_of_it_too(gateway: Gateway) -> None:
    expect = Expected(verifier=PROVER.ss58_address)
    client = Client(api_key="k", base_url=gateway.url, expect=expect)
    for one in (client, client.with_options(timeout=9.0), client.copy()):
        with pytest.raises(NotVerified, match="receipt's verifier"):
            one.chat.completions.create(**ASK).verify()
    client.chat.completions.create(**ASK).verify(verifier=VERIFIER.ss58_address)


def test_what_the_environment_has_for_openai_stays_at_home(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "openai-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("TARGON_API_KEY", "sk-mine")
    monkeypatch.setenv("TARGON_BASE_URL", gateway.url)
    client = Client()
    client.chat.completions.create(**ASK)
    client.models.list()
    for headers, _ in gateway.asked:
        assert headers["authorization"] == "Bearer sk-mine"
        assert "openai-secret" not in str(headers)


def test_without_a_key_the_message_says_where_one_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TARGON_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "openai-secret")
    for kind in (Client, AsyncClient):
        with pytest.raises(openai.OpenAIError, match="expected a key of the gateway"):
            kind()


def test_without_an_address_it_is_the_gateway_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TARGON_BASE_URL", raising=False)
    assert str(Client(api_key="k").base_url) == "http://127.0.0.1:8888/v1/"


# -- on file -------------------------------------------------------------------------------------------------


def test_a_saved_answer_is_what_targon_verify_replays(client: Client, tmp_path) -> None:
    answer = client.chat.completions.create(**ASK, n=2)
    answer.save(tmp_path / "answers.jsonl", client.receipt(answer.receipts[0]))
    first, second = read_answers(tmp_path / "answers.jsonl")
    assert first.statement is not None
    assert second.statement is None
    for one in (first, second):
        assert anyio.run(check_answer, one, TinyEngine()).verdict.outcome == "pass"
