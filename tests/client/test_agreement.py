"""What a gateway reads out of a request, and what the client says that it must, are written twice and are the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from targon.client import NotVerified
from targon.client.asked import Form, Wanted, wanted
from targon.gateway.api.reading import read_chat, read_completion
from targon.gateway.refusals import ApiError
from targon.protocol.orders import Order

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
STOP = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
CONTENT = st.one_of(
    TEXT, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), min_size=1, max_size=3)
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": CONTENT},
    optional={"name": st.none()},
)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.one_of(st.none(), st.floats(0, 2), st.sampled_from([0, 1, 2])),
    "top_p": st.one_of(st.none(), st.floats(0.01, 1), st.just(1)),
    "top_k": st.one_of(st.none(), st.integers(0, 50)),
    "max_tokens": st.one_of(st.none(), st.integers(1, 500)),
    "stop": st.one_of(st.none(), STOP, st.lists(STOP, max_size=4)),
    "n": st.one_of(st.none(), st.integers(1, 4)),
    "seed": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "user": st.one_of(st.none(), TEXT),
    "stream": st.one_of(st.none(), st.booleans()),
    "frequency_penalty": st.sampled_from([None, 0, 0.0]),
    "presence_penalty": st.sampled_from([None, 0]),
    "logit_bias": st.sampled_from([None, {}]),
    "metadata": st.sampled_from([None, {}, {"a": "b"}]),
}
CHAT = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(TURN, min_size=1, max_size=3)},
    optional=SHARED
    | {
        "max_completion_tokens": st.none(),
        "logprobs": st.sampled_from([None, False, True]),
        "tools": st.sampled_from([None, []]),
        "tool_choice": st.sampled_from([None, "none", "auto"]),
        "response_format": st.sampled_from([None, {"type": "text"}]),
        "modalities": st.sampled_from([None, ["text"]]),
        "service_tier": st.sampled_from([None, "auto", "default"]),
        "store": st.sampled_from([None, False]),
        "verbosity": st.sampled_from([None, "medium"]),
        "parallel_tool_calls": st.sampled_from([None, False, True]),
        "prompt_cache_key": TEXT,
        "safety_identifier": TEXT,
    },
)
TEXTS = st.fixed_dictionaries(
    {"model": st.just("m"), "prompt": st.one_of(TEXT, st.lists(TEXT, min_size=1, max_size=3))},
    optional=SHARED
    | {
        "logprobs": st.sampled_from([None, 0]),
        "echo": st.sampled_from([None, False]),
        "best_of": st.sampled_from([None, 1]),
        "suffix": st.sampled_from([None, ""]),
    },
)
ODD = st.sampled_from(
    [
        {},
        {"max_tokens": 7, "max_completion_tokens": 7},
        {"max_tokens": None, "max_completion_tokens": 9},
        {"frequency_penalty": 0.5},
        {"presence_penalty": -1},
        {"logit_bias": {"5": 1}},
        {"min_p": 0.5},
        {"logprobs": True, "top_logprobs": 0},
        {"logprobs": True, "top_logprobs": 2},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"modalities": ["audio"]},
        {"service_tier": "flex"},
        {"store": True},
        {"reasoning_effort": "low"},
        {"echo": True},
        {"best_of": 2},
        {"suffix": "x"},
        {"prompt": [5, 6]},
        {"messages": [{"role": "user", "content": "x", "name": "Eve"}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [], "refusal": None}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "assistant"}]},
    ]
)
"""What is likely to be refused, one at a time."""


def as_wanted(order: Order) -> Wanted:
    return Wanted(
        choice=order.choice,
        model=order.model,
        messages=tuple((message.role, message.content) for message in order.messages),
        temperature=order.temperature,
        top_p=order.top_p,
        top_k=order.top_k,
        max_tokens=order.max_tokens,
        stop=order.stop,
    )


def agree(form: Form, body: dict[str, Any]) -> bool:
    """Whatever a gateway takes, the client can verify, and expects the very same of each prover's request.

    Returns:
        Whether the gateway takes it.
    """
    read = read_chat if form == "chat" else read_completion
    try:
        orders = read(json.dumps(body).encode()).orders
    except ApiError:
        return False
    try:
        assert wanted(form, body) == [as_wanted(order) for order in orders]
    except NotVerified as error:
        raise AssertionError(f"a gateway takes what the client can't verify: {error}") from error
    return True


@settings(deadline=None, max_examples=300)
@given(CHAT, ODD)
def test_a_chat_is_read_by_gateways_as_the_client_expects(body: dict[str, Any], odd: dict[str, Any]) -> None:
    assert agree("chat", body)
    agree("chat", body | odd)


@settings(deadline=None, max_examples=200)
@given(TEXTS, ODD)
def test_a_completion_is_read_by_gateways_as_the_client_expects(
    body: dict[str, Any], odd: dict[str, Any]
) -> None:
    assert agree("text", body)
    agree("text", body | odd)
