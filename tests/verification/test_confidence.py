"""Limits of a frequency: as published, and as often right as they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.verification.confidence import lower_limit, upper_limit


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(5, 50, 0.03327509, 0.21813537), (1, 10, 0.00252858, 0.44501612), (50, 100, 0.39832112, 0.60167888)],
)
def test_limits_are_those_of_the_published_tables(successes, trials, low, high):
    assert lower_limit(successes, trials, 0.025) == pytest.approx(low, abs=1e-8)
    assert upper_limit(successes, trials, 0.025) == pytest.approx(high, abs=1e-8)


@given(st.integers(1, 10**6), st.floats(1e-9, 0.5))
def test_nothing_seen_leaves_the_limit_of_the_closed_form(trials, risk):
    assert upper_limit(0, trials, risk) == pytest.approx(-math.expm1(math.log(risk) / trials), rel=1e-6)
    assert lower_limit(0, trials, risk) == 0.0
    assert upper_limit(trials, trials, risk) == 1.0


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.floats(0.001, 0.999), st.sampled_from([0.001, 0.05, 0.3]))
def test_limits_cover_the_truth_as_often_as_they_say(trials, truth, risk):
    chances = [math.comb(trials, k) * truth**k * (1.0 - truth) ** (trials - k) for k in range(trials + 1)]
    above = sum(c for k, c in enumerate(chances) if upper_limit(k, trials, risk) < truth)
    below = sum(c for k, c in enumerate(chances) if lower_limit(k, trials, risk) > truth)
    assert above <= risk + 1e-9
    assert below <= risk + 1e-9


@pytest.mark.parametrize(
    ("successes", "trials", "risk"), [(-1, 3, 0.1), (4, 3, 0.1), (1, 3, 0.0), (1, 3, 1.0)]
)
def test_limits_of_what_cannot_be_are_refused(successes, trials, risk):
    for limit in (lower_limit, upper_limit):
        with pytest.raises(ValueError, match="expected 0 <= successes"):
            limit(successes, trials, risk)
