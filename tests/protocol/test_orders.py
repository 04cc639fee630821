"""Orders: what a user may ask for, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from targon.protocol import ChatMessage, MalformedMessage, Message, Order, Sampling
from targon.protocol.vectors.filing import order_json


def test_an_order_comes_back_as_it_was_sent() -> None:
    order = Order.from_json(order_json())
    assert Order.from_bytes(order.to_bytes()) == order


def test_an_order_says_all_that_sampling_says_but_what_is_drawn_for_it() -> None:
    drawn_or_decided = {"dialect", "seed"}
    assert set(Sampling.model_fields) - drawn_or_decided <= set(Order.model_fields)


def test_what_an_order_leaves_open_is_what_openai_s_api_leaves_open() -> None:
    order = Order.from_json({"model": "m", "messages": [{"role": "user", "content": "Why?"}]})
    assert (order.temperature, order.top_p, order.top_k, order.max_tokens) == (1.0, 1.0, 0, None)
    assert (order.stop, order.choice, order.seed) == ((), 0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ""},
        {"messages": []},
        {"messages": [{"role": "developer", "content": "x"}]},
        {"temperature": -0.1},
        {"temperature": 10.1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": ["a"] * 5},
        {"stop": ["x" * 65]},
        {"choice": 128},
        {"logit_bias": {}},
    ],
)
def test_an_order_beyond_the_limits_is_refused_by_name(changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(MalformedMessage, match=rf"Order: {field}"):
        Order.from_json(order_json(**changes))


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_seed_of_64_bits_has_a_canonical_form(seed: int) -> None:
    order = Order(model="m", messages=(ChatMessage(role="user", content="Why?"),), seed=seed)
    assert Order.from_bytes(order.to_bytes()) == order
    assert order.to_json()["seed"] == (seed % 2**64).to_bytes(8, "big").hex()


class Letter(Message):
    """A message with an order in it."""

    order: Order


def test_an_order_within_another_message_stands_there_as_it_does_alone() -> None:
    order = Order(model="m", messages=(ChatMessage(role="user", content="Why?"),), seed=-7)
    assert Letter(order=order).to_bytes() == b'{"order":%b}' % order.to_bytes()


@pytest.mark.parametrize("seed", [7, "7", "0x00000000000000", "00000000000000AA", "0" * 17, True, 0.5])
def test_what_is_no_seed_in_json_is_refused(seed: Any) -> None:
    with pytest.raises(MalformedMessage, match=r"Order: seed.*expected 16 lower-case hex digits"):
        Order.from_json(order_json(seed=seed))


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1, "7"])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    with pytest.raises(ValidationError, match="seed"):
        Order(model="m", messages=(ChatMessage(role="user", content="Why?"),), seed=seed)
