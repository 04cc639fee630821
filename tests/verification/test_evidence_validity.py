"""Why an honest prover is convicted with probability at most α: no bet gains under any honest behaviour.

The first tests compute expectations exactly. The last ones simulate; they use a larger α, so that they can fail.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol.suspicions import NO_RIVAL, SUSPICIONS
from targon.verification.bets import (
    LEAD_CLASSES,
    RIVAL_CHANCES,
    TAIL_ODDS,
    alternatives,
    bets_of,
    guarded_bounds,
    rival_bounds,
    tail_payoffs,
)
from targon.verification.calibration import GUARD_LEVELS, TELLING_BOUND, RivalBounds
from targon.verification.evidence import EvidenceState, advance
from targon.verification.observations import GAP_STRATA
from tests.verification.completions import BOUNDS, GAPS, SHARES, band_with, observed

ROUNDING = 1e-12

bounds = st.lists(st.floats(1e-5, 1.0), min_size=GAP_STRATA, max_size=GAP_STRATA)


@settings(max_examples=50, deadline=None)
@given(bounds, st.floats(1.5, 20.0), st.floats(0.0, 1.0))
def test_no_bet_on_a_mismatch_gains_under_any_rate_within_its_bound(values, recurrence, share):
    band = band_with(values, recurrence=recurrence)
    honest = share * guarded_bounds(band)[..., None]
    pays = np.exp(bets_of(band).mismatch).reshape(GUARD_LEVELS, GAP_STRATA, 2, -1)
    worth = honest * pays[:, :, 1] + (1.0 - honest) * pays[:, :, 0]
    assert (worth <= 1.0 + ROUNDING).all()


def test_every_bet_on_a_mismatch_uses_its_whole_bound():
    """At the bound it is fair, and just above it gains: a weaker bound would be seen here."""
    band = band_with()
    limit = guarded_bounds(band)[..., None]
    pays = np.exp(bets_of(band).mismatch).reshape(GUARD_LEVELS, GAP_STRATA, 2, -1)
    assert limit * pays[:, :, 1] + (1.0 - limit) * pays[:, :, 0] == pytest.approx(1.0, abs=1e-9)
    over = 1.02 * limit
    gaining = over * pays[:, :, 1] + (1.0 - over) * pays[:, :, 0] > 1.0 + ROUNDING
    betting = pays[:, :, 1] > 1.0
    assert np.any(betting[0], axis=-1).all()
    assert np.array_equal(gaining, betting)


def test_every_bet_on_a_rival_uses_its_whole_bound():
    """As a bet on any mismatch: fair at the bound, and no bet where the suspicion promises less than that."""
    band = band_with()
    limit = rival_bounds(band)
    pays = np.exp(bets_of(band).rivals).reshape(*limit.shape, 2)
    worth = limit * pays[..., 1] + (1.0 - limit) * pays[..., 0]
    assert worth[..., :NO_RIVAL] == pytest.approx(1.0, abs=1e-9)
    promised = np.array([*RIVAL_CHANCES, *[0.0] * (LEAD_CLASSES - len(RIVAL_CHANCES))])
    assert np.array_equal(pays[..., 1] > 1.0 + ROUNDING, promised > limit)
    assert (pays[..., NO_RIVAL, :] == 1.0).all()


@settings(max_examples=50, deadline=None)
@given(bounds, bounds, st.floats(1.5, 20.0), st.floats(0.0, 1.0))
def test_no_bet_on_a_rival_gains_under_any_rate_within_its_bound(behind, close, recurrence, share):
    """Whatever the bounds on mismatches are: rivals have their own, one for each side."""
    own = RivalBounds(behind=tuple(behind), close=tuple(close))
    band = band_with(recurrence=recurrence).model_copy(update={"rivals": (own,) * len(SUSPICIONS)})
    level_0 = rival_bounds(band)[0]
    assert level_0[:, 0, 0] == pytest.approx(behind)
    assert level_0[:, 0, NO_RIVAL - 1] == pytest.approx(close)
    honest = share * rival_bounds(band)
    pays = np.exp(bets_of(band).rivals).reshape(*honest.shape, 2)
    assert (honest * pays[..., 1] + (1.0 - honest) * pays[..., 0] <= 1.0 + ROUNDING).all()


def test_the_further_behind_the_surer_a_rival_is_claimed():
    assert (np.diff(RIVAL_CHANCES) <= 0.0).all()


def test_a_bound_grows_by_the_recurrence_with_every_telling_mismatch():
    limits = guarded_bounds(band_with(recurrence=2.0))
    assert limits[:, 5] == pytest.approx([0.001 * 2.0**m for m in range(GUARD_LEVELS)])
    assert (limits <= 1.0).all()


@settings(max_examples=100, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(1.0, 3.0), st.floats(0.0, 1.0))
def test_no_bet_on_the_tail_gains_within_its_bounds(mass, least, most, place):
    honest = mass * least + place * (min(1.0, mass * most) - mass * least)
    one = np.array([mass]), np.array([least]), np.array([most])
    hit, miss = (np.exp(tail_payoffs(one[0], np.array([x]), one[1], one[2]))[0] for x in (True, False))
    assert (honest * hit + (1.0 - honest) * miss <= 1.0 + ROUNDING).all()


def test_every_bet_on_the_tail_uses_its_whole_bound():
    one = np.array([0.3]), np.array([0.8]), np.array([1.2])
    hit, miss = (np.exp(tail_payoffs(one[0], np.array([x]), one[1], one[2]))[0] for x in (True, False))
    for honest, outside, bets in ((0.24, 0.23, slice(0, 2)), (0.36, 0.37, slice(2, None))):
        assert (honest * hit + (1.0 - honest) * miss)[bets] == pytest.approx(1.0, abs=1e-12)
        assert ((outside * hit + (1.0 - outside) * miss)[bets] > 1.0).all()
    assert [odds < 1.0 for odds in TAIL_ODDS[:2]] == [True, True]


def test_a_tail_that_an_honest_prover_may_always_hit_is_no_bet_on_heat():
    pays = tail_payoffs(np.array([0.9]), np.array([True]), np.array([1.0]), np.array([2.0]))
    assert pays[0, 2:] == pytest.approx(0.0, abs=1e-12)


def test_alternatives_mismatch_less_the_wider_the_gap():
    assert (np.diff(alternatives(), axis=1) <= 0.0).all()


@pytest.mark.parametrize("history", [[], [False], [True, False, True], [False] * 30])
@pytest.mark.parametrize("gaps", [(0.3, 0.3, 0.3), (0.033, 0.145, 5.5), (0.72, 0.01, 1.45)])
def test_the_expectation_of_e_after_a_completion_is_what_it_was_before(history, gaps):
    """Summed over everything that three positions can bring, of the worst that an honest prover may do: exactly
    fair where every bound is used up, on tails as on gaps."""
    band = band_with(recurrence=3.0, least=1.0, most=1.0)
    bets, limits = bets_of(band), guarded_bounds(band)
    strata = [int(np.argmin(abs(GAPS - gap))) for gap in gaps]
    masses = (0.05, 0.3, 0.8)
    state = EvidenceState()
    for mismatched in history:
        state = advance(state, observed([0.72], [mismatched]), bets)
    expected = 0.0
    for wrong in itertools.product((False, True), repeat=3):
        chance, telling = 1.0, 0
        for stratum, mismatched in zip(strata, wrong, strict=True):
            limit = float(limits[telling, stratum])
            chance *= limit if mismatched else 1.0 - limit
            telling += mismatched and BOUNDS[stratum] <= TELLING_BOUND
        for tails in itertools.product((False, True), repeat=3):
            likely = math.prod(m if hit else 1.0 - m for m, hit in zip(masses, tails, strict=True))
            one = observed(
                gaps,
                wrong,
                tail_mass=masses,
                in_tail=tails,
                rivals=[0x0000000, 0xFFF5FF0, 0x9876543],  # whoever is suspected, and however
                claimed_rivals=[127 * mismatched for mismatched in wrong],
            )
            expected += chance * likely * math.exp(advance(state, one, bets).log_e)
    assert expected == pytest.approx(math.exp(state.log_e), rel=1e-9)


def false_convictions(
    sigma: float, recurrence: float, alpha: float, streams: int = 250, completions: int = 60
) -> float:
    """Share of honest streams whose e ever reaches 1/α. Their mean rates are at the bounds; a log-normal effect
    multiplies all of a completion's rates."""
    limits = np.array([0.3, 0.15, 0.08, 0.04, 0.01, 0.002, 0.001, 0.001, 0.001])
    bets = bets_of(band_with(limits.tolist(), recurrence=recurrence))
    rng = np.random.default_rng(7)
    convicted = 0
    for _ in range(streams):
        state = EvidenceState()
        for _ in range(completions):
            theta = math.exp(sigma * rng.standard_normal() - sigma**2 / 2)
            strata = rng.choice(GAP_STRATA, size=64, p=SHARES)
            wrong = rng.random(64) < np.minimum(1.0, theta * limits[strata])
            state = advance(state, observed(GAPS[strata], wrong), bets)
        convicted += state.log_peak >= -math.log(alpha)
    return convicted / streams


@pytest.mark.parametrize("sigma", [0.0, 1.0, 1.5])
def test_honest_streams_with_heavy_dependence_are_convicted_with_probability_alpha_at_most(sigma):
    assert false_convictions(sigma, recurrence=max(1.5, math.exp(sigma**2)), alpha=0.05) <= 0.05


def test_without_its_guard_the_evidence_would_convict_honest_streams():
    assert false_convictions(1.5, recurrence=1.5, alpha=0.05) > 0.1
