"""What users get wrong, or mean ill: each is told what it is, and nobody gets a 5xx for it."""

from __future__ import annotations

import json
import time

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.gateway.api.reading import read_chat, read_completion
from targon.gateway.refusals import ApiError
from targon.transport import Limits
from tests.gateway.front_world import MODEL, Script, a_front, chat

pytestmark = pytest.mark.anyio

UNSUPPORTED = {
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "logit_bias": {"50256": -100},
    "top_logprobs": 3,
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "parallel_tool_calls": "no",
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "verbosity": "low",
    "web_search_options": {},
    "store": True,
    "service_tier": "priority",
    "moderation": {"model": "m"},
}
"""Every parameter of OpenAI's that can't be honoured, with a value that would change something."""


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_parameter_that_can_t_be_honoured_is_refused_by_its_name(name):
    body = chat(**{name: UNSUPPORTED[name]}) | ({"logprobs": True} if name == "top_logprobs" else {})
    with pytest.raises(ApiError) as caught:
        read_chat(json.dumps(body).encode())
    assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")
    assert str(caught.value.param).split(".")[0] == name
    assert str(caught.value).startswith(name)
    assert "Not supported: " in str(caught.value)


DEFAULTS = {
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "verbosity": "medium",
    "store": False,
    "service_tier": "auto",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_its_default_is_accepted(name):
    assert read_chat(json.dumps(chat(**{name: DEFAULTS[name]})).encode()).orders
    assert read_chat(json.dumps(chat(**{name: None})).encode()).orders


@pytest.mark.parametrize(
    "name", ["top_logprobs", *UNSUPPORTED, "temperature", "stop", "n", "seed", "stream", "user"]
)
def test_null_stands_for_the_default(name):
    assert read_chat(json.dumps(chat(**{name: None})).encode()) == read_chat(json.dumps(chat()).encode())


WRONG = [
    ({"model": MODEL}, "messages", "missing_required_parameter", "messages is missing"),
    ({"messages": chat()["messages"]}, "model", "missing_required_parameter", "model is missing"),
    (chat(messages=[]), "messages", "invalid_value", "got an empty array, expected: .*at least 1 item"),
    (chat(messages="hi"), "messages", "invalid_type", "got 'hi', expected: a valid list"),
    (chat(messages=["hi"]), "messages[0]", "invalid_type", "got 'hi'"),
    (chat(messages=[{"content": "x"}]), "messages[0].role", "missing_required_parameter", "role is missing"),
    (
        chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]),
        "messages[0].role",
        "unsupported_value",
        "got 'tool', expected one of system, developer, user, assistant",
    ),
    (chat(messages=[{"role": "user"}]), "messages[0].content", "missing_required_parameter", "is missing"),
    (chat(messages=[{"role": "user", "content": None}]), "messages[0].content", "invalid_type", "got null"),
    (
        chat(messages=[{"role": "user", "content": []}]),
        "messages[0].content",
        "invalid_value",
        "at least 1 item",
    ),
    (
        chat(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
                }
            ]
        ),
        "messages[0].content[0].type",
        "unsupported_value",
        "got 'image_url', expected 'text': images, audio and files aren't supported",
    ),
    (
        chat(messages=[{"role": "user", "content": "x", "name": "bob"}]),
        "messages[0].name",
        "unsupported_parameter",
        "knows no names",
    ),
    (
        chat(messages=[{"role": "assistant", "content": "x", "tool_calls": [{}]}]),
        "messages[0].tool_calls",
        "unsupported_parameter",
        "given no tools",
    ),
    (chat(frobnicate=1), "frobnicate", "unknown_parameter", "there is no such parameter"),
    (chat(temperature=3), "temperature", "invalid_value", "got 3, expected: less than or equal to 2"),
    (chat(temperature="hot"), "temperature", "invalid_type", "got 'hot', expected: a valid number"),
    (chat(temperature=True), "temperature", "invalid_type", "got true or false"),
    (chat(top_p=0), "top_p", "invalid_value", "got 0, expected: greater than 0"),
    (chat(top_k=-1), "top_k", "invalid_value", "got -1"),
    (chat(max_tokens=0), "max_tokens", "invalid_value", "got 0"),
    (chat(max_tokens=1.5), "max_tokens", "invalid_type", "got 1.5"),
    (chat(max_tokens=5, max_completion_tokens=6), "max_tokens", "invalid_value", "expected one of the two"),
    (chat(n=17), "n", "invalid_value", "got 17"),
    (chat(stop=["a"] * 5), "stop", "invalid_value", "at most 4 items"),
    (chat(stop=[""]), "stop[0]", "invalid_value", "at least 1 character"),
    (chat(stop=[1]), "stop[0]", "invalid_type", "got 1"),
    (chat(seed=1 << 64), "seed", "invalid_value", "got 18446744073709551616"),
    (chat(stream="yes"), "stream", "invalid_type", "got 'yes'"),
    (chat(stream_options={}), "stream_options", "invalid_value", "stream: true beside it"),
    (
        chat(stream=True, stream_options={"include_obfuscation": True}),
        "stream_options.include_obfuscation",
        "unsupported_parameter",
        "not padded",
    ),
    (chat(top_logprobs=0), "top_logprobs", "invalid_value", "logprobs: true beside it"),
    (chat("x" * 262_145), "messages[0].content", "invalid_value", "got text of 262145 characters"),
    (
        chat(messages=[{"role": "user", "content": "x"}] * 257),
        "messages",
        "invalid_value",
        "at most 256 items",
    ),
    (chat("\ud800"), "messages[0].content", "invalid_value", "lone surrogate"),
    (chat(model=""), "model", "invalid_value", "at least 1 character"),
]


@pytest.mark.parametrize(("body", "param", "code", "message"), WRONG)
def test_what_is_wrong_is_named(body, param, code, message):
    with pytest.raises(ApiError, match=message) as caught:
        read_chat(json.dumps(body).encode())
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert len(str(caught.value)) < 400


WRONG_PROMPTS = [
    ({"prompt": [1, 2, 3]}, "prompt[0]", "got token ids, expected text"),
    ({"prompt": [[1, 2]]}, "prompt[0]", "got token ids, expected text"),
    ({"prompt": []}, "prompt", "got an empty array"),
    ({"prompt": None}, "prompt", "got null"),
    ({}, "prompt", "is missing"),
    ({"prompt": ["x"] * 9, "n": 2}, "n", "got 2 answers to each of 9 prompts, expected at most 16 in all"),
    ({"prompt": "x", "logprobs": 1}, "logprobs", "got 1"),
    ({"prompt": "x", "echo": True}, "echo", "the prompt is not repeated"),
    ({"prompt": "x", "suffix": "y"}, "suffix", "Not supported"),
    ({"prompt": "x", "best_of": 2}, "best_of", "every answer is given out"),
]


@pytest.mark.parametrize(("body", "param", "message"), WRONG_PROMPTS)
def test_what_is_wrong_with_a_prompt_is_named(body, param, message):
    with pytest.raises(ApiError, match=message) as caught:
        read_completion(json.dumps({"model": MODEL} | body).encode())
    assert (caught.value.status, caught.value.param) == (400, param)


NO_JSON = [
    (b"", "Expecting value"),
    (b"{", "column 2"),
    (b"[]", "got an array, expected an object"),
    (b"null", "got null, expected an object"),
    (b'{"model":"a","model":"b"}', "the key 'model' comes twice"),
    (b'{"metadata":{"a":"1","a":"2"}}', "the key 'a' comes twice"),
    (b'{"temperature":NaN}', "NaN is no JSON number"),
    (b'{"temperature":-Infinity}', "-Infinity is no JSON number"),
    (b'{"seed":' + b"1" * 5000 + b"}", "too many digits"),
    (b'{"model":"\xff"}', "it is not UTF-8, from byte 10 on"),
    (b'\xef\xbb\xbf{"model":"a"}', "Expecting value"),
    ('{"model":"a"}'.encode("utf-16"), "not UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"model":"a"} x', "Extra data"),
    (b"{'model':'a'}", "property name"),
]


@pytest.mark.parametrize(("body", "message"), NO_JSON)
def test_what_is_no_json_or_has_two_meanings_is_refused(body, message):
    with pytest.raises(ApiError, match=message) as caught:
        read_chat(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_a_number_that_is_no_double_is_refused():
    body = json.dumps(chat()).encode()[:-1] + b',"temperature":1e999}'
    with pytest.raises(ApiError, match="temperature: got inf"):
        read_chat(body)


def complaint(read, body):
    try:
        read(body)
    except ApiError as error:
        return error
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [*UNSUPPORTED, "messages", "model", "prompt", "stop", "stream_options", "metadata", "n", "logprobs"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=5), st.booleans())
def test_whatever_comes_is_a_request_or_an_error_of_the_user_s(fields, whole):
    body = (chat() | {"prompt": "x"} if whole else {}) | fields
    for read in (read_chat, read_completion):
        error = complaint(read, json.dumps(body).encode())
        if error is not None:
            assert error.status == 400
            assert len(error.body()) < 2000
            json.loads(error.body())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_a_request_or_an_error_of_the_user_s(body):
    with pytest.raises(ApiError) as caught:
        read_chat(body)
    assert caught.value.status == 400


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_text_reaches_the_prover_as_it_was_written(text):
    for ascii_only in (True, False):
        request = read_chat(json.dumps(chat(text), ensure_ascii=ascii_only).encode())
        assert request.orders[0].messages[0].content == text


async def test_errors_have_openai_s_form_over_http(tmp_path):
    async with a_front(tmp_path) as world:
        status, headers, reply = await world.post(chat(tools=[{}]))
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert set(reply) == {"error"}
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    assert (reply["error"]["type"], reply["error"]["param"]) == ("invalid_request_error", "tools")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""]
)
async def test_another_content_type_is_refused(tmp_path, kind):
    async with a_front(tmp_path) as world:
        status, _, reply = await world.post(chat(), content_type=kind)
    assert (status, reply["error"]["code"]) == (415, "unsupported_media_type")


async def test_a_charset_that_is_utf_8_is_fine(tmp_path):
    async with a_front(tmp_path) as world:
        status, _, _ = await world.post(chat(), content_type='Application/JSON; charset="UTF-8"')
    assert status == 200


async def test_an_encoded_body_is_refused(tmp_path):
    async with a_front(tmp_path) as world:
        status, _, reply = await world.post(chat(), content_encoding="gzip")
    assert (status, reply["error"]["code"]) == (415, "unsupported_media_type")


async def test_a_body_of_ten_megabytes_is_refused_before_it_has_come(tmp_path):
    async with a_front(tmp_path) as world:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += "content-type: application/json\r\ncontent-length: 10485760\r\n\r\n"
        status, headers, reply = await world.raw(head.encode())
    assert status == 413
    assert headers["connection"] == "close"
    assert b"got 10485760 bytes, expected at most 2097152 bytes" in reply


async def test_a_body_of_unknown_length_is_refused_once_it_is_too_large(tmp_path):
    async with a_front(tmp_path, limits=Limits(max_body_bytes=1000)) as world:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        status, _, _ = await world.raw(head.encode() + chunk * 3)
    assert status == 413


async def test_a_body_that_trickles_is_cut_off(tmp_path):
    limits = Limits(body_timeout_s=0.5, body_grace_s=0.5)
    async with a_front(tmp_path, limits=limits) as world:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        status, headers, reply = await world.raw(head.encode())
    assert status == 408
    assert headers["connection"] == "close"
    assert json.loads(reply)["error"]["code"] == "body_too_slow"


@pytest.mark.parametrize(
    ("request_line", "status", "code"),
    [
        ("GET /v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE /v1/models", 405, "method_not_allowed"),
        ("GET /v2/nothing", 404, "not_found"),
        ("GET /v1/models/%00", 404, "model_not_found"),
        ("GET /v1/receipts/xyz", 400, "invalid_value"),
        ("GET /v1/receipts/" + "0" * 64, 404, "receipt_not_found"),
    ],
)
async def test_other_ways_to_go_wrong_have_the_same_form(tmp_path, request_line, status, code):
    async with a_front(tmp_path) as world:
        head = f"{request_line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n\r\n"
        got, headers, reply = await world.raw(head.encode())
    assert got == status
    assert json.loads(reply)["error"]["code"] == code
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\x00" * 100],
)
async def test_what_is_no_http_costs_a_connection_and_nothing_else(tmp_path, garbage):
    async with a_front(tmp_path) as world:
        async with await anyio.connect_tcp("127.0.0.1", world.port) as stream:
            await stream.send(garbage + b"\r\n\r\n")
            with anyio.fail_after(5):
                reply = b""
                try:
                    while True:
                        reply += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
        assert reply == b"" or reply.startswith(b"HTTP/1.1 4")
        assert (await world.post(chat()))[0] == 200


async def test_a_client_that_leaves_before_its_body_is_whole_is_forgotten(tmp_path):
    async with a_front(tmp_path) as world:
        async with await anyio.connect_tcp("127.0.0.1", world.port) as stream:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
            head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            await stream.send(head.encode())
        with anyio.fail_after(5):
            while not world.count("targon_gateway_abandoned_total"):
                await anyio.sleep(0.01)
        assert world.script.orders == []


async def test_a_large_body_of_nonsense_is_read_quickly():
    body = json.dumps(chat(messages=[{"role": "user", "content": "x", "a": [1] * 100_000}] * 5)).encode()
    started = time.thread_time()
    with pytest.raises(ApiError):
        read_chat(body)
    assert time.thread_time() - started < 1.0


async def test_a_bug_of_ours_is_told_without_what_was_said(tmp_path, capsys):
    script = Script(before=ZeroDivisionError("a secret prompt"))
    async with a_front(tmp_path, script) as world:
        status, headers, reply = await world.post(chat("a secret prompt"))
    assert (status, reply["error"]["code"]) == (500, "internal_error")
    assert headers["x-request-id"] in reply["error"]["message"]
    said = capsys.readouterr()
    assert "ZeroDivisionError" in said.out + said.err
    assert "secret" not in said.out + said.err
