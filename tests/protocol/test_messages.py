"""The messages of the wire: round trips, digests, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import (
    ChatMessage,
    Completion,
    GenerateRequest,
    GenerateResponse,
    MalformedMessage,
    Message,
    ProverStatus,
    Receipt,
    Sampling,
    TokenEvent,
)
from targon.protocol.messages import MAX_COMPLETION_TOKENS, MAX_MESSAGES, MAX_STOP_CHARS

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
HEX8 = st.binary(min_size=8, max_size=8).map(bytes.hex)
HEX32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
SAFE = st.integers(0, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=6).map(tuple)

CHAT = st.builds(ChatMessage, role=st.sampled_from(["system", "user", "assistant"]), content=TEXT)
SAMPLING = st.builds(
    Sampling,
    dialect=st.sampled_from(["targon/1", "greedy", "vllm", "native"]),
    seed=HEX8,
    temperature=st.floats(0.0, 10.0),
    top_p=st.floats(0.0, 1.0, exclude_min=True),
    top_k=st.integers(0, 2**31 - 1),
    max_tokens=st.integers(1, MAX_COMPLETION_TOKENS),
    stop=st.lists(TEXT.filter(len), max_size=4).map(tuple),
    choice=st.integers(0, 127),
)
REQUESTS = st.builds(
    GenerateRequest,
    salt=HEX32,
    genesis=HEX32,
    netuid=st.integers(0, 65_535),
    verifier=st.sampled_from([ALICE, BOB]),
    prover=st.sampled_from([ALICE, BOB]),
    attempt=HEX8,
    block=SAFE,
    block_hash=HEX32,
    log_head=HEX32,
    model=TEXT.filter(len),
    messages=st.lists(CHAT, min_size=1, max_size=3).map(tuple),
    sampling=SAMPLING,
    stream=st.booleans(),
)
LOGPROBS = st.none() | st.lists(st.floats(-1e3, 0.0), max_size=6).map(tuple)
COMPLETIONS = st.builds(
    Completion,
    salt=HEX32,
    request_digest=HEX32,
    token_ids=TOKENS,
    finish_reason=st.sampled_from(["stop", "stop_string", "length"]),
    text=TEXT,
    logprobs=LOGPROBS,
)
STATUSES = st.builds(
    ProverStatus,
    version=TEXT,
    hotkey=st.just(ALICE),
    models=st.lists(TEXT, max_size=3).map(tuple),
    dialects=st.lists(st.sampled_from(["targon/1", "greedy"]), max_size=2).map(tuple),
    capacity=SAFE,
    queued=SAFE,
    running=SAFE,
)
EVENTS = st.builds(TokenEvent, token_ids=TOKENS, text=TEXT)


@given(st.one_of(REQUESTS, COMPLETIONS, STATUSES, EVENTS, SAMPLING))
def test_a_message_comes_back_from_its_bytes(message: Message) -> None:
    again = type(message).from_bytes(message.to_bytes())
    assert again == message
    assert again.to_bytes() == message.to_bytes()
    assert again.digest() == message.digest()
    assert type(message).from_json(message.to_json()) == message


@given(REQUESTS)
def test_the_layout_of_the_json_changes_nothing(message: GenerateRequest) -> None:
    laid_out = json.dumps(dict(reversed(message.to_json().items())), indent=3)
    assert GenerateRequest.from_bytes(laid_out).digest() == message.digest()


@given(REQUESTS, st.sampled_from(sorted(GenerateRequest.model_fields)), st.data())
def test_every_field_of_a_request_is_in_its_digest(
    message: GenerateRequest, field: str, data: st.DataObject
) -> None:
    other = data.draw(REQUESTS)
    changed = message.model_copy(update={field: getattr(other, field)})
    assert (changed.digest() == message.digest()) == (changed == message)


@given(SAMPLING, SAMPLING, st.sampled_from(sorted(Sampling.model_fields)))
def test_every_sampling_parameter_is_in_the_digest(message: Sampling, other: Sampling, field: str) -> None:
    changed = message.model_copy(update={field: getattr(other, field)})
    assert (changed.digest() == message.digest()) == (changed == message)


@given(COMPLETIONS, COMPLETIONS, st.sampled_from(sorted(Completion.model_fields)))
def test_every_field_of_a_completion_but_its_text_is_in_its_digest(
    message: Completion, other: Completion, field: str
) -> None:
    changed = message.model_copy(update={field: getattr(other, field)})
    assert (changed.digest() == message.digest()) == (changed == message or field == "text")


def test_defaults_are_written_out_in_the_canonical_form() -> None:
    assert Sampling.from_bytes('{"seed":"00000000000000ff","temperature":1,"max_tokens":3}').to_bytes() == (
        b'{"choice":0,"dialect":"targon/1","max_tokens":3,"seed":"00000000000000ff","stop":[],'
        b'"temperature":1,"top_k":0,"top_p":1}'
    )


def test_messages_cannot_be_changed(request_message: GenerateRequest) -> None:
    with pytest.raises(ValueError, match="frozen"):
        request_message.block = 5


def test_whole_answers_hold_a_completion_and_its_receipt(completion: Completion, receipt: Receipt) -> None:
    response = GenerateResponse(completion=completion, receipt=receipt)
    assert GenerateResponse.from_bytes(response.to_bytes()) == response


def test_the_attempt_number_is_the_integer_behind_its_hex(request_message: GenerateRequest) -> None:
    assert request_message.attempt_number == 77


def changed(message: Message, **fields: Any) -> str:
    return json.dumps(message.to_json() | fields)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"purpose": "challenge"}, "purpose: Extra inputs are not permitted; got 'challenge'"),
    ({"spec_version": 2}, "spec_version: Input should be 1; got 2"),
    ({"salt": "AA" * 32}, "salt: .*expected 64 lower-case hex digits"),
    ({"salt": "aa" * 31}, "salt: .*expected 64 lower-case hex digits"),
    ({"salt": 7}, "salt: Input should be a valid string; got 7"),
    ({"attempt": "77"}, "attempt: .*got '77', expected 16 lower-case hex digits"),
    ({"netuid": 65_536}, "netuid: Input should be less than 65536; got 65536"),
    ({"netuid": -1}, "netuid: .*got -1"),
    ({"netuid": True}, "netuid: Input should be a valid integer; got True"),
    ({"netuid": "4"}, "netuid: Input should be a valid integer; got '4'"),
    ({"block": 2**53}, "block: Input should be less than or equal to 9007199254740991; got 9007199254740992"),
    ({"block": 0.5}, "block: .*got 0.5"),
    ({"block": None}, "block: .*got None"),
    ({"prover": "0x00"}, "prover: .*got '0x00'"),
    ({"prover": "0" * 48}, "prover: .*got '0000"),
    ({"model": ""}, "model: .*got ''"),
    ({"messages": []}, "messages: .*at least 1 item"),
    ({"messages": [{"role": "user", "content": ""}] * (MAX_MESSAGES + 1)}, "messages: .*at most 256 items"),
    ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role: .*got 'tool'"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"stream": "yes"}, "stream: .*got 'yes'"),
    ({"stream": 1}, "stream: .*got 1"),
]

REFUSED_SAMPLING: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -0.001}, "temperature: .*greater than or equal to 0; got -0.001"),
    ({"temperature": 10.5}, "temperature: .*less than or equal to 10; got 10.5"),
    ({"temperature": float("nan")}, "temperature: .*finite number; got nan"),
    ({"temperature": float("inf")}, "temperature: .*finite number; got inf"),
    ({"temperature": "0.8"}, "temperature: .*valid number; got '0.8'"),
    ({"temperature": True}, "temperature: .*valid number; got True"),
    ({"top_p": 0.0}, "top_p: .*greater than 0; got 0.0"),
    ({"top_p": 1.001}, "top_p: .*less than or equal to 1; got 1.001"),
    ({"top_k": -1}, "top_k: .*got -1"),
    ({"top_k": 2**31}, "top_k: .*got 2147483648"),
    ({"max_tokens": 0}, "max_tokens: .*got 0"),
    ({"max_tokens": MAX_COMPLETION_TOKENS + 1}, "max_tokens: .*less than or equal to 131072"),
    ({"choice": 128}, "choice: .*less than 128; got 128"),
    ({"seed": 5}, "seed: .*got 5"),
    ({"stop": [""]}, "stop.0: .*at least 1 character"),
    ({"stop": ["x" * (MAX_STOP_CHARS + 1)]}, "stop.0: .*at most 64 characters"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop: .*at most 4 items"),
    ({"dialect": "targon/2"}, "dialect: .*'targon/1', 'greedy', 'vllm' or 'native'; got 'targon/2'"),
    ({"min_p": 0.1}, "min_p: Extra inputs are not permitted; got 0.1"),
    ({"frequency_penalty": 0.1}, "frequency_penalty: Extra inputs are not permitted"),
    ({"logit_bias": {"1": 2}}, "logit_bias: Extra inputs are not permitted"),
    ({"grammar": "x"}, "grammar: Extra inputs are not permitted"),
]

REFUSED_COMPLETION: list[tuple[dict[str, Any], str]] = [
    ({"token_ids": [-1]}, "token_ids.0: .*got -1"),
    ({"token_ids": [2**31]}, "token_ids.0: .*got 2147483648"),
    ({"token_ids": [1.5]}, "token_ids.0: .*got 1.5"),
    ({"token_ids": "12"}, "token_ids: .*got '12'"),
    ({"finish_reason": "eos"}, "finish_reason: .*got 'eos'"),
    ({"logprobs": [float("nan")]}, "logprobs.0: .*finite number; got nan"),
    ({"logprobs": [float("-inf")]}, "logprobs.0: .*finite number; got -inf"),
    ({"text": None}, "text: .*got None"),
    ({"request_digest": ""}, "request_digest: .*got '', expected 64 lower-case hex digits"),
]


@pytest.mark.parametrize(("fields", "complaint"), REFUSED)
def test_a_request_with_a_wrong_field_is_refused_naming_it(
    request_message: GenerateRequest, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(MalformedMessage, match=f"^GenerateRequest: {complaint}"):
        GenerateRequest.from_bytes(changed(request_message, **fields))


@pytest.mark.parametrize(("fields", "complaint"), REFUSED_SAMPLING)
def test_a_wrong_sampling_parameter_is_refused_naming_it(
    request_message: GenerateRequest, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(MalformedMessage, match=f"^Sampling: {complaint}"):
        Sampling.from_bytes(changed(request_message.sampling, **fields))


@pytest.mark.parametrize(("fields", "complaint"), REFUSED_COMPLETION)
def test_a_completion_with_a_wrong_field_is_refused_naming_it(
    completion: Completion, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(MalformedMessage, match=f"^Completion: {complaint}"):
        Completion.from_bytes(changed(completion, **fields))


@given(REQUESTS, st.sampled_from(sorted(set(GenerateRequest.model_fields) - {"spec_version", "stream"})))
def test_a_request_without_one_of_its_fields_is_refused_naming_it(
    message: GenerateRequest, field: str
) -> None:
    value = message.to_json()
    del value[field]
    with pytest.raises(MalformedMessage, match=f"{field}: Field required"):
        GenerateRequest.from_json(value)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match=r"^GenerateRequest: "):
        GenerateRequest.from_bytes(data)


def test_a_refusal_names_five_problems_counts_the_rest_and_cuts_long_values() -> None:
    with pytest.raises(MalformedMessage) as caught:
        GenerateRequest.from_bytes(json.dumps({"salt": "z" * 1000}))
    text = str(caught.value)
    assert text.endswith("and 7 more")
    assert len(text) < 2000
    assert "z" * 90 not in text


def test_an_integer_beyond_53_bits_has_no_json_form() -> None:
    with pytest.raises(MalformedMessage, match="no canonical form"):
        Sampling.from_json({"seed": "0" * 16, "temperature": 1.0, "max_tokens": 2**53})
