"""How much the tail of a position's distribution weighs, and what a claimed token has no say in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol import TAIL_PROBABILITY, Replay, Sampling, candidates, replay_tokens
from targon.protocol.sampler import scaled

VOCAB = 60
DRAWN = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 1.5},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 0.8, "top_k": 5},
    {"temperature": 1.0, "top_k": 20, "top_p": 0.95},
]


def sampling(**fields: object) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1} | fields)


def reference(seed: int, positions: int, spread: float = 2.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(positions, VOCAB)) * spread
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def replayed(logprobs: np.ndarray, claimed: np.ndarray, chosen: Sampling, seen: int = VOCAB) -> Replay:
    ids = np.argsort(-logprobs, axis=1, kind="stable")[:, :seen]
    return replay_tokens(
        ids,
        np.take_along_axis(logprobs, ids, axis=1),
        claimed,
        np.take_along_axis(logprobs, claimed[:, None], axis=1)[:, 0],
        vocab_size=VOCAB,
        sampling=chosen,
        run_key=3,
    )


@pytest.mark.parametrize("parameters", DRAWN)
def test_the_tail_is_what_is_drawn_seldom_after_temperature_and_cuts(parameters: dict[str, float]) -> None:
    chosen, logprobs = sampling(**parameters), reference(1, 40)
    claimed = np.arange(40)
    result = replayed(logprobs, claimed, chosen)
    for position, row in enumerate(logprobs):
        scores = scaled(row, chosen.temperature)
        kept = candidates(scores, chosen.top_k, chosen.top_p)
        drawn = np.zeros(VOCAB)
        drawn[kept] = np.exp(scores[kept]) / np.exp(scores[kept]).sum()
        assert result.tail_mass[position] == pytest.approx(drawn[drawn < TAIL_PROBABILITY].sum(), abs=1e-9)
        assert result.in_tail[position] == (drawn[claimed[position]] < TAIL_PROBABILITY)


def test_a_token_below_a_twentieth_lies_in_the_tail() -> None:
    logprobs = np.full((1, VOCAB), -80.0, np.float32)
    logprobs[0, :3] = np.log([0.9, 0.052, 0.048])
    for token, inside in enumerate([False, False, True]):
        result = replayed(logprobs, np.array([token]), sampling(temperature=1.0))
        assert result.tail_mass[0] == pytest.approx(0.048, abs=1e-6)
        assert bool(result.in_tail[0]) == inside


@pytest.mark.parametrize("parameters", [*DRAWN, {"temperature": 0.0}])
@settings(deadline=None, max_examples=40)
@given(st.integers(1, VOCAB), st.integers(0, 1000), st.data())
def test_gap_and_tail_do_not_depend_on_the_claimed_token(
    parameters: dict[str, float], seen: int, seed: int, data: st.DataObject
) -> None:
    logprobs = reference(seed, 3)
    one, other = (
        replayed(logprobs, np.array(data.draw(st.tuples(*[st.integers(0, VOCAB - 1)] * 3))), chosen, seen)
        for chosen in [sampling(**parameters)] * 2
    )
    assert one.gaps.tolist() == other.gaps.tolist()
    assert np.array_equal(one.tail_mass, other.tail_mass, equal_nan=True)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(DRAWN), st.integers(1, VOCAB - 1), st.integers(0, 1000))
def test_with_a_list_the_tail_is_right_to_a_thousandth_or_unknown_and_the_gap_is_never_overstated(
    parameters: dict[str, float], seen: int, seed: int
) -> None:
    chosen, logprobs = sampling(**parameters), reference(seed, 4, spread=3.0)
    claimed = np.full(4, 7)
    whole, part = replayed(logprobs, claimed, chosen), replayed(logprobs, claimed, chosen, seen)
    known = ~np.isnan(part.tail_mass)
    assert (np.abs(part.tail_mass - whole.tail_mass)[known] <= 1e-3).all()
    sure = ~part.unsure
    assert (part.gaps[sure] <= whole.gaps[sure] + 1e-12).all()


def test_a_long_list_knows_the_tail_and_a_short_one_does_not() -> None:
    logprobs, chosen = reference(2, 30, spread=4.0), sampling(temperature=0.8)
    claimed = np.zeros(30, int)
    assert not np.isnan(replayed(logprobs, claimed, chosen, seen=50).tail_mass).any()
    assert np.isnan(replayed(logprobs, claimed, chosen, seen=1).tail_mass).any()


def test_nothing_is_in_the_tail_where_nothing_is_drawn() -> None:
    result = replayed(reference(3, 5), np.arange(5), sampling(temperature=0.0))
    assert all(map(math.isnan, result.tail_mass))
    assert not result.in_tail.any()
