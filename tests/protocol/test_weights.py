"""Scores as the weights that the chain stores."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol.primitives import Uid
from targon.protocol.weights import MAX_WEIGHT, NoWeights, u16_weights

uids = st.integers(0, 65_535).map(Uid)
scores = st.dictionaries(uids, st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=40)


def weights_of(scores: dict[Uid, float]) -> dict[Uid, int]:
    weights = u16_weights(scores)
    assert not isinstance(weights, NoWeights)
    return weights


def named(*values: float) -> dict[Uid, float]:
    return {Uid(uid): value for uid, value in enumerate(values)}


def test_the_largest_score_has_the_largest_weight_and_the_rest_their_share() -> None:
    assert weights_of(named(1.0, 0.5, 0.25)) == {0: 65_535, 1: 32_768, 2: 16_384}


def test_halves_are_rounded_up() -> None:
    assert weights_of({Uid(0): 65_535, Uid(1): 0.5, Uid(2): 1.5, Uid(3): 2.5}) == {
        0: 65_535,
        1: 1,
        2: 2,
        3: 3,
    }


def test_what_rounds_to_zero_is_left_out() -> None:
    below_half = 0.5 - 2**-54
    assert weights_of({Uid(0): 65_535, Uid(1): below_half, Uid(2): 0.0}) == {0: 65_535}


def test_weights_come_in_uid_order() -> None:
    assert list(weights_of({Uid(9): 1.0, Uid(2): 1.0, Uid(5): 1.0})) == [2, 5, 9]


def test_when_all_scores_are_zero_there_are_no_weights_and_it_says_why() -> None:
    assert u16_weights(named(0.0, 0.0)) == NoWeights("every score of the 2 provers is 0")


def test_when_there_is_no_prover_there_are_no_weights_and_it_says_why() -> None:
    assert u16_weights({}) == NoWeights("there is no prover")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match=r"score of UID 1: got .*, expected a finite number >= 0"):
        u16_weights(named(1.0, score))


@given(scores.filter(lambda s: any(s.values())))
def test_the_largest_weight_is_the_largest_there_is(scores: dict[Uid, float]) -> None:
    assert max(weights_of(scores).values()) == MAX_WEIGHT


@given(scores.filter(lambda s: any(s.values())))
def test_order_is_kept(scores: dict[Uid, float]) -> None:
    weights = weights_of(scores)
    ranked = sorted(scores, key=lambda uid: scores[uid])
    values = [weights.get(uid, 0) for uid in ranked]
    assert values == sorted(values)


@given(scores.filter(lambda s: any(s.values())))
def test_weighing_weights_changes_nothing(scores: dict[Uid, float]) -> None:
    weights = weights_of(scores)
    assert weights_of({uid: float(weight) for uid, weight in weights.items()}) == weights


@given(scores.filter(lambda s: any(s.values())))
def test_each_weight_is_the_nearest_and_the_upper_of_two(scores: dict[Uid, float]) -> None:
    weights = weights_of(scores)
    top = max(scores.values())
    for uid, score in scores.items():
        exact = 65_535 * Fraction(score) / Fraction(top)
        assert -Fraction(1, 2) < weights.get(uid, 0) - exact <= Fraction(1, 2)


@given(scores.filter(lambda s: any(s.values())), st.integers(-20, 20))
def test_the_scale_of_the_scores_changes_nothing(scores: dict[Uid, float], power: int) -> None:
    scaled = {uid: score * 2.0**power for uid, score in scores.items()}
    exact = all(
        Fraction(scaled[uid]) == Fraction(score) * Fraction(2) ** power for uid, score in scores.items()
    )
    assert not exact or weights_of(scaled) == weights_of(scores)
