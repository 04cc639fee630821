"""Canonical bytes and digests."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import MalformedMessage, canonical_bytes, digest

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
