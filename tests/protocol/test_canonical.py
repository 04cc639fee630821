"""Canonical bytes and digests."""

from __future__ import annotations

import collections
import copy
import enum
import hashlib
import json
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol import (
    Completion,
    GenerateRequest,
    MalformedMessage,
    TokenEvent,
    canonical_bytes,
    digest,
)
from targon.protocol.tiers import Tier

SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | SAFE | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def read_json(form: bytes) -> object:
    """JSON as JavaScript reads it: an integer too large to be exact is a float."""
    return json.loads(
        form, parse_int=lambda digits: int(digits) if abs(int(digits)) < 2**53 else float(digits)
    )


@given(JSON)
def test_the_canonical_form_is_json_that_has_itself_as_canonical_form(value: object) -> None:
    form = canonical_bytes(value)
    assert canonical_bytes(read_json(form)) == form
    assert digest(value) == hashlib.sha256(form).hexdigest()


@given(st.dictionaries(TEXT, SCALARS, min_size=2, max_size=6))
def test_the_order_of_keys_changes_nothing(value: dict[str, object]) -> None:
    assert canonical_bytes(dict(reversed(value.items()))) == canonical_bytes(value)


def test_keys_are_ordered_by_utf_16_and_nothing_is_added() -> None:
    assert canonical_bytes({"\ufb33": 1, "\U0001f600": [True, None], "a": "\n"}).decode() == (
        '{"a":"\\n","\U0001f600":[true,null],"\ufb33":1}'
    )


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), math.nan, math.inf, -math.inf, "\ud800", {1: 2}, [object()], b"bytes"]
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(MalformedMessage, match="no canonical form"):
        canonical_bytes({"value": value})


class Named(enum.StrEnum):
    ONE = "one"


ODD = st.sampled_from(
    [
        *(2**53 - 1, 2**53, -(2**53) + 1, -(2**53), 10**400, True, False),
        *(
            -0.0,
            0.0,
            1e21,
            1e20,
            123456789012345678901.0,
            9007199254740993.0,
            1e-6,
            1e-7,
            5e-324,
            1e16,
            -1e15,
            0.1,
        ),
        *(math.nan, math.inf, -math.inf, np.float64(1.5), np.int64(7), Named.ONE, Tier.BRONZE),
        *("\ud800", "\udfff\ud800", "\x7f\x80\x00\x1f\u2028", "\ufffd", "\U0010ffff", b"bytes", 1j, {1}),
        collections.OrderedDict([("b", 1), ("a", 2)]),
    ]
)
# Keys around the two places where the order of UTF-16 and that of code points part: surrogates, and what follows them.
KEYS = st.text(
    st.sampled_from('aZ\x00"\x7fé\ud7ff\ue000\ufb33\uffff\U00010000\U0001f600\U0010ffff'), max_size=3
)
ANYTHING = st.recursive(
    SCALARS | st.floats() | st.integers() | st.text(st.characters()) | ODD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(st.floats() | st.integers(), max_size=4)
        | st.dictionaries(KEYS | st.text(st.characters()) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=12,
)


def by_the_rule(value: object) -> bytes | None:
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError):
        return None


def by_us(value: object) -> bytes | None:
    try:
        return canonical_bytes(value)
    except MalformedMessage:
        return None


@settings(max_examples=1_000)
@given(ANYTHING)
def test_every_value_is_written_or_refused_as_the_rule_has_it(value: object) -> None:
    assert by_us(value) == by_the_rule(value)
    assert by_us({"value": [value]}) == by_the_rule({"value": [value]})


@given(st.floats())
def test_every_float_is_written_or_refused_as_the_rule_has_it(value: float) -> None:
    assert by_us(value) == by_the_rule(value)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_what_is_nested_deeply_is_written_as_the_rule_has_it(wrap: Callable[[object], object]) -> None:
    value: object = 1
    for _ in range(600):
        value = wrap(value)
    assert by_us(value) == by_the_rule(value)


@given(
    tokens=st.lists(st.integers(0, 2**31 - 1), max_size=4),
    logprobs=st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    text=TEXT,
)
def test_a_message_is_written_as_the_json_that_it_is(
    tokens: list[int], logprobs: list[float] | None, text: str
) -> None:
    said = None if logprobs is None else tuple(logprobs)
    event = TokenEvent(token_ids=tuple(tokens), text=text, logprobs=said)
    assert event.to_bytes() == rfc8785.dumps(event.to_json())
    completion = Completion(
        salt="11" * 32,
        request_digest="22" * 32,
        token_ids=tuple(tokens),
        finish_reason="stop",
        text=text,
        logprobs=said,
    )
    assert completion.to_bytes() == rfc8785.dumps(completion.to_json())
    assert completion.digest() == digest(completion.evidence_json())


def test_a_message_that_holds_what_has_no_canonical_form_is_refused() -> None:
    for event in (
        TokenEvent.model_construct(token_ids=(2**53,), text=""),
        TokenEvent.model_construct(token_ids=(), text="", logprobs=(math.nan,)),
    ):
        with pytest.raises(MalformedMessage, match="no canonical form"):
            event.to_bytes()


def test_a_changed_copy_of_a_message_has_a_digest_of_its_own(request_message: GenerateRequest) -> None:
    request = request_message.model_copy()
    before = request.digest(), request.to_bytes()
    changed = request.model_copy(update={"salt": "99" * 32})
    assert changed.digest() == digest(changed.to_json()) != before[0]
    assert changed.to_bytes() == canonical_bytes(changed.to_json()) != before[1]
    again = GenerateRequest.from_bytes(before[1])
    assert again == request
    assert hash(again) == hash(request)
    assert pickle.loads(pickle.dumps(request)) == copy.deepcopy(request) == request
