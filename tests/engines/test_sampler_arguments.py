"""What travels to a plugin comes back as it was sent, and what cannot is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.engines.sampler_arguments import Draw, parse_sampler_arguments, sampler_arguments
from targon.protocol import Sampling, UnsupportedSampling

GIVEN = {"targon_run_key": "0123456789abcdef", "targon_temperature": 0.8}


def sampling(**fields: object) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "temperature": 0.8, "max_tokens": 1} | fields)


@given(
    st.integers(0, 2**64 - 1),
    st.one_of(st.just(0.0), st.floats(0.05, 10.0)),
    st.floats(0.0, 1.0, exclude_min=True),
    st.integers(0, 2**31 - 1),
    st.integers(0, 127),
)
def test_what_was_sent_arrives(run_key: int, temperature: float, top_p: float, top_k: int, choice: int):
    sent = sampling(temperature=temperature, top_p=top_p, top_k=top_k, choice=choice)
    arrived = parse_sampler_arguments(json.loads(json.dumps(sampler_arguments(sent, run_key))))
    assert arrived == Draw(run_key, temperature, top_k, top_p, choice)
    assert arrived.sampling() == sent


def test_cuts_and_choice_may_be_left_out():
    assert parse_sampler_arguments(GIVEN) == Draw(0x0123456789ABCDEF, 0.8)


def test_a_whole_temperature_may_come_as_an_integer():
    arrived = parse_sampler_arguments(GIVEN | {"targon_temperature": 1})
    assert arrived is not None
    assert isinstance(arrived.temperature, float)


@pytest.mark.parametrize("extra", [None, {}, {"kv_transfer_params": {}, "seed": 3}])
def test_who_sends_none_of_them_is_left_alone(extra):
    assert parse_sampler_arguments(extra) is None


def test_arguments_of_others_may_stand_beside():
    assert parse_sampler_arguments({"somebody": [1]} | GIVEN) == parse_sampler_arguments(GIVEN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("targon_run_key", "0123"),
        ("targon_run_key", "0123456789ABCDEF"),
        ("targon_run_key", 81985529216486895),
        ("targon_temperature", 0.049),
        ("targon_temperature", -1.0),
        ("targon_temperature", 10.5),
        ("targon_temperature", float("nan")),
        ("targon_temperature", "0.8"),
        ("targon_temperature", True),
        ("targon_top_k", -1),
        ("targon_top_k", 2**31),
        ("targon_top_k", 40.0),
        ("targon_top_k", True),
        ("targon_top_p", 0.0),
        ("targon_top_p", 1.01),
        ("targon_top_p", None),
        ("targon_choice", -1),
        ("targon_choice", 128),
        ("targon_min_p", 0.1),
    ],
)
def test_what_is_malformed_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got .*, expected "):
        parse_sampler_arguments(GIVEN | {name: value})


@pytest.mark.parametrize("name", list(GIVEN))
def test_a_key_or_a_temperature_that_is_missing_is_asked_for(name):
    with pytest.raises(ValueError, match=rf"^{name}: got none, expected "):
        parse_sampler_arguments({key: value for key, value in GIVEN.items() if key != name})


def test_another_dialect_is_not_sent():
    with pytest.raises(UnsupportedSampling, match="dialect"):
        sampler_arguments(sampling(dialect="native"), 1)


def test_a_key_of_more_than_64_bits_is_not_sent():
    with pytest.raises(ValueError, match="2\\*\\*64"):
        sampler_arguments(sampling(), 2**64)
