"""How often inferences are audited: never never, and more often the less is known, or the worse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import audits
from targon.protocol.audits import AUDIT_RATES, PROBATION_RATE, audit_rate, is_drawn, own_inference_due
from targon.protocol.tiers import Tier

TIERS = st.sampled_from(list(Tier))
LOG_E = st.floats(-1e6, 1e6)
DRAWS = st.integers(0, 2**64 - 1)


@given(TIERS, st.booleans(), LOG_E)
def test_a_rate_is_never_zero_and_never_above_one(tier: Tier, trial: bool, log_e: float) -> None:
    assert AUDIT_RATES[Tier.CHALLENGER] <= audit_rate(tier, on_probation=trial, log_e=log_e) <= 1.0


def test_every_tier_has_a_rate_and_a_higher_one_a_lower() -> None:
    rates = [AUDIT_RATES[tier] for tier in Tier]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(Tier)


@given(TIERS, st.booleans(), LOG_E, LOG_E)
def test_more_evidence_means_no_fewer_audits(tier: Tier, trial: bool, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert audit_rate(tier, on_probation=trial, log_e=low) <= audit_rate(tier, on_probation=trial, log_e=high)


@given(TIERS, LOG_E)
def test_probation_means_no_fewer_audits(tier: Tier, log_e: float) -> None:
    on_trial = audit_rate(tier, on_probation=True, log_e=log_e)
    assert on_trial >= max(PROBATION_RATE, audit_rate(tier, on_probation=False, log_e=log_e))


@given(TIERS, st.floats(-1e6, 0.0))
def test_evidence_of_honesty_changes_nothing(tier: Tier, log_e: float) -> None:
    assert audit_rate(tier, on_probation=False, log_e=log_e) == AUDIT_RATES[tier]


@given(DRAWS, st.floats(1e-9, 1.0))
def test_a_draw_is_compared_exactly(draw: int, rate: float) -> None:
    numerator, denominator = (rate * 2.0**64).as_integer_ratio()
    assert is_drawn(draw, rate) == (draw * denominator < numerator)


@given(DRAWS)
def test_at_rate_one_everything_is_drawn(draw: int) -> None:
    assert is_drawn(draw, 1.0)


@given(DRAWS, st.floats(1e-9, 1.0), st.floats(1e-9, 1.0))
def test_what_is_drawn_at_a_rate_is_drawn_at_a_higher_one(draw: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert is_drawn(draw, low) <= is_drawn(draw, high)


@given(DRAWS, st.integers(0, 10), st.integers(1, 1_000))
def test_own_inferences_end_with_enough_audits(draw: int, audited: int, blocks: int) -> None:
    due = own_inference_due(draw, audits=audited, interval_blocks=blocks)
    assert due <= (audited < audits.OWN_PER_INTERVAL)


@pytest.mark.parametrize("blocks", [5, 360, 10_000])
def test_own_inferences_come_four_in_an_interval_on_average(blocks: int) -> None:
    highest = math.ceil(2**64 * min(1.0, 4 / blocks))
    assert own_inference_due(int(highest * 0.999), audits=0, interval_blocks=blocks)
    assert not own_inference_due(int(highest * 1.001), audits=0, interval_blocks=blocks)


def test_evidence_raises_the_rate_by_its_logarithm() -> None:
    assert audit_rate(Tier.GOLD, on_probation=False, log_e=1.5) == AUDIT_RATES[Tier.GOLD] * 2.5
    assert audit_rate(Tier.GOLD, on_probation=False, log_e=50.0) == 1.0


def test_a_draw_at_the_rate_itself_is_not_drawn() -> None:
    assert [is_drawn(draw, 0.5) for draw in (2**63 - 1, 2**63)] == [True, False]
