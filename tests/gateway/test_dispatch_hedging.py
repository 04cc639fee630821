"""When a second prover is asked, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.gateway.dispatch_hedging import FirstTokenTimes, HedgeBudget, Hedging

HEDGING = Hedging(floor_s=0.5, factor=2.0, unknown_s=5.0, ceiling_s=30.0, share=0.05, burst=10)


def test_where_nothing_is_known_of_a_model_a_fixed_time_is_waited() -> None:
    times = FirstTokenTimes(HEDGING)
    for _ in range(19):
        times.saw("tiny", 1.0)
    assert times.patience_s("tiny") == 5.0


def test_a_prover_is_slow_past_twice_what_nineteen_of_twenty_take() -> None:
    times = FirstTokenTimes(HEDGING)
    for place in range(20):
        times.saw("tiny", 1.0 + place / 10)
    assert times.patience_s("tiny") == pytest.approx(2 * 2.9)


def test_models_have_times_of_their_own() -> None:
    times = FirstTokenTimes(HEDGING)
    for _ in range(20):
        times.saw("tiny", 1.0)
    assert times.patience_s("large") == 5.0


def test_old_times_are_forgotten() -> None:
    times = FirstTokenTimes(HEDGING)
    for seconds in [10.0] * 256 + [1.0] * 272:
        times.saw("tiny", seconds)
    assert times.patience_s("tiny") == 2.0


@given(st.lists(st.floats(0.0, 1000.0), min_size=20, max_size=300))
def test_no_one_is_hedged_before_the_floor_or_spared_past_the_ceiling(seconds: list[float]) -> None:
    times = FirstTokenTimes(HEDGING)
    for each in seconds:
        times.saw("tiny", each)
    assert HEDGING.floor_s <= times.patience_s("tiny") <= HEDGING.ceiling_s


@given(st.integers(0, 2000))
def test_a_network_that_is_slow_as_a_whole_gets_a_twentieth_more_load_at_most(orders: int) -> None:
    budget = HedgeBudget(HEDGING)
    hedges = 0
    for _ in range(orders):
        budget.earn()
        hedges += budget.spend()
    assert hedges <= 0.05 * orders + HEDGING.burst
