"""What requests earn, and how it becomes a score."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import rewards
from targon.protocol.profile import STANDARD

speeds = st.floats(min_value=0.0, max_value=1e6)
earnings = st.lists(st.floats(min_value=-10.0, max_value=10.0), max_size=30)


def test_a_request_at_the_median_speed_earns_three_quarters_of_the_factor() -> None:
    assert rewards.served(0.98, 30.0, 30.0) == pytest.approx(0.98 * 0.75)


def test_speed_tells_by_the_published_formula() -> None:
    sigma = 1 / (1 + math.exp(-4 * (45 / 30 - 1)))
    assert rewards.served(0.444, 45.0, 30.0) == pytest.approx(0.444 * (0.5 + 0.5 * sigma))


@pytest.mark.parametrize(("speed", "median"), [(30.0, None), (None, 30.0), (None, None), (30.0, 0.0)])
def test_without_a_measure_a_request_earns_as_at_the_median(
    speed: float | None, median: float | None
) -> None:
    assert rewards.served(1.0, speed, median) == 0.75


@given(st.sampled_from([0.444, 1.0]), speeds, speeds)
def test_a_served_request_earns_between_half_the_factor_and_all_of_it(
    factor: float, speed: float, median: float
) -> None:
    assert factor / 2 <= rewards.served(factor, speed, median) <= factor


@given(speeds, speeds, st.floats(min_value=1e-300, max_value=1e6))
def test_who_is_faster_never_earns_less(a: float, b: float, median: float) -> None:
    slow, fast = sorted((a, b))
    assert rewards.served(1.0, slow, median) <= rewards.served(1.0, fast, median)


def test_a_failed_inference_costs_five_failed_challenges() -> None:
    assert rewards.failed("challenge") == -0.1
    assert rewards.failed("inference") == -0.5


def test_a_score_takes_one_step_with_the_sum_of_a_block() -> None:
    assert rewards.score_step(1.0, [0.5, 0.5, -0.1], 0.05) == pytest.approx(0.95 * 1.0 + 0.05 * 0.9)


def test_volume_pays() -> None:
    assert rewards.score_step(0.0, [0.75] * 4, 0.05) == pytest.approx(
        4 * rewards.score_step(0.0, [0.75], 0.05)
    )


@given(st.floats(0.0, 100.0), earnings, st.floats(0.001, 1.0))
def test_a_score_is_never_negative_nor_nan(score: float, earned: list[float], alpha: float) -> None:
    after = rewards.score_step(score, earned, alpha)
    assert after >= 0.0
    assert math.isfinite(after)


@given(earnings, st.randoms(use_true_random=False))
def test_the_order_within_a_block_changes_nothing(earned: list[float], random: object) -> None:
    shuffled = list(earned)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rewards.score_step(0.3, shuffled, 0.05) == rewards.score_step(0.3, earned, 0.05)


def test_the_median_speed_is_that_of_the_middle() -> None:
    assert rewards.median_speed([10.0, 1000.0, 20.0]) == 20.0
    assert rewards.median_speed([10.0, 20.0]) == 15.0
    assert rewards.median_speed([]) is None


def test_probation_ends_with_its_last_token() -> None:
    assert rewards.on_probation(4_999, STANDARD)
    assert not rewards.on_probation(5_000, STANDARD)


def test_only_replayable_dialects_count() -> None:
    assert {"targon/1", "greedy"} == rewards.COUNTED_DIALECTS
