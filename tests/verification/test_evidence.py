"""Evidence over time, as the verifier keeps it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol.conviction import CONVICTION
from targon.protocol.suspicions import NO_RIVALS
from targon.verification.bets import BET_WORDS, STAKES, bets_of
from targon.verification.evidence import EvidenceState, advance, reserve, trace
from targon.verification.observations import (
    GAP_EDGES,
    TAIL_EDGES,
    Observations,
    gap_stratum,
    tail_stratum,
)
from tests.verification.completions import HONEST, INT4, INT8, band_with, drawn, observed

BETS = bets_of(band_with())
NOBODY = np.zeros(9)


def after(rates: np.ndarray, completions: int, seed: int = 1, heat: float = 1.0) -> EvidenceState:
    rng = np.random.default_rng(seed)
    state = EvidenceState()
    for _ in range(completions):
        state = advance(state, drawn(rng, rates, heat=heat), BETS)
    return state


def test_evidence_begins_at_one():
    assert EvidenceState().log_e == 0.0
    assert sum(STAKES) == pytest.approx(1.0, abs=1e-15)


def test_a_perfect_completion_speaks_for_the_prover():
    state = advance(EvidenceState(), observed([0.33] * 64, [False] * 64), BETS)
    assert state.log_e < 0.0
    assert (state.completions, state.tokens) == (1, 64)


def test_an_honest_prover_is_not_convicted_in_a_hundred_thousand_tokens():
    state = after(HONEST, 1600)
    assert state.tokens > 100_000
    assert not state.convicted
    assert state.log_peak < math.log(100)


@pytest.mark.parametrize(("rates", "tokens"), [(INT4, 64), (INT8, 2_000)])
def test_a_cheat_is_convicted(rates, tokens):
    found = [after(rates, 40, seed).convicted_at or 10**9 for seed in range(20)]
    assert np.median(found) <= tokens


def test_a_prover_that_mismatches_nowhere_but_samples_too_hot_is_convicted():
    assert after(NOBODY, 400, heat=1.8).convicted


def test_a_prover_that_mismatches_nowhere_but_samples_too_cold_is_convicted():
    assert after(NOBODY, 400, heat=0.5).convicted


def test_a_prover_that_is_bad_in_one_completion_of_twenty_is_convicted():
    rng = np.random.default_rng(3)
    state = EvidenceState()
    for number in range(1, 101):
        state = advance(state, drawn(rng, INT4 if number % 20 == 0 else HONEST), BETS)
    assert state.convicted


def test_honest_years_do_not_pay_for_cheating_later():
    """A million tokens, and every number is still one."""
    rng = np.random.default_rng(4)
    honest = [drawn(rng, HONEST, 4096) for _ in range(50)]
    state = EvidenceState()
    for number in range(250):
        state = advance(state, honest[number % 50], BETS)
    assert state.tokens > 1_000_000
    assert np.isfinite(state.log_wealth).all()
    assert not state.convicted
    for _ in range(10):
        state = advance(state, drawn(rng, INT4), BETS)
    assert state.convicted


def test_the_moment_of_conviction_is_a_token_within_its_completion():
    state = advance(EvidenceState(), observed([5.5] * 40, [True] * 40), BETS)
    path = trace(EvidenceState(), observed([5.5] * 40, [True] * 40), BETS)
    first = int(np.argmax(path >= math.log(CONVICTION))) + 1
    assert state.convicted_at == first
    assert 1 < first < 6


def test_a_conviction_stands_though_the_rest_of_the_completion_is_perfect():
    gaps, wrong = [5.5] * 10 + [0.33] * 3000, [True] * 10 + [False] * 3000
    state = advance(EvidenceState(), observed(gaps, wrong), BETS)
    assert state.log_e < math.log(CONVICTION)
    assert state.convicted


def test_a_conviction_is_not_moved_by_what_comes_after():
    state = advance(EvidenceState(), observed([5.5] * 40, [True] * 40), BETS)
    later = advance(state, observed([5.5] * 40, [True] * 40), BETS)
    assert later.convicted_at == state.convicted_at


def test_the_moment_of_conviction_counts_unsure_positions_as_tokens():
    sure = advance(EvidenceState(), observed([5.5] * 9, [True] * 9), BETS)
    unsure = advance(
        EvidenceState(), observed([5.5] * 12, [True] * 12, unsure=[True] * 3 + [False] * 9), BETS
    )
    assert unsure.convicted_at == (sure.convicted_at or 0) + 3


def test_unsure_positions_are_skipped():
    clear = observed([0.3, 2.0], [False, False])
    doubtful = observed([0.3, 5.0, 2.0], [False, True, False], unsure=[False, True, False])
    with_doubt, without = (advance(EvidenceState(), one, BETS) for one in (doubtful, clear))
    assert with_doubt.log_wealth == without.log_wealth
    assert (with_doubt.tokens, without.tokens) == (3, 2)


def test_a_completion_of_nothing_but_unsure_positions_changes_no_bet():
    state = advance(EvidenceState(), observed([5.0], [True], unsure=[True]), BETS)
    assert state.log_e == pytest.approx(0.0, abs=1e-12)
    assert advance(EvidenceState(), observed([], []), BETS).log_e == pytest.approx(0.0, abs=1e-12)


def test_the_same_mismatch_says_more_the_wider_its_gap():
    said = [advance(EvidenceState(), observed([gap], [True]), BETS).log_e for gap in (0.01, 0.15, 0.3, 1.5)]
    assert said == sorted(said)
    assert said[0] < 0.1 < said[-1]


@pytest.mark.parametrize(("first", "softens"), [(0.01, False), (0.05, False), (0.15, True), (3.0, True)])
def test_after_a_telling_mismatch_the_rest_of_the_completion_says_less(first, softens):
    """How much less is the recurrence; a mismatch near a coin flip softens nothing."""
    light, heavy = (bets_of(band_with(recurrence=recurrence)) for recurrence in (1.5, 8.0))
    one = observed([first, 0.3], [True, True])
    says, with_more = (advance(EvidenceState(), one, bets).log_e for bets in (light, heavy))
    assert (with_more < says - 0.1) == softens
    assert (with_more == says) == (not softens)


def test_the_next_completion_begins_without_suspicion():
    light, heavy = (bets_of(band_with(recurrence=recurrence)) for recurrence in (1.5, 8.0))
    one = observed([0.3], [True])
    first, second = (advance(advance(EvidenceState(), one, bets), one, bets) for bets in (light, heavy))
    assert first == second


def test_the_order_of_completions_matters_and_is_the_log_s():
    bad, good = observed([2.0] * 3, [True] * 3), observed([0.3] * 64, [False] * 64)
    bad_first = advance(advance(EvidenceState(), bad, BETS), good, BETS)
    good_first = advance(advance(EvidenceState(), good, BETS), bad, BETS)
    assert bad_first.tokens == good_first.tokens
    assert bad_first.log_e != pytest.approx(good_first.log_e, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 20), rates=st.sampled_from([HONEST, INT8, INT4]))
def test_a_restart_from_a_saved_state_changes_nothing(seed, cut, rates):
    rng = np.random.default_rng(seed)
    work = [drawn(rng, rates) for _ in range(20)]
    through, restarted = EvidenceState(), EvidenceState()
    for number, one in enumerate(work):
        through = advance(through, one, BETS)
        if number == cut:
            restarted = EvidenceState.from_bytes(restarted.to_bytes())
        restarted = advance(restarted, one, BETS)
    assert restarted == through
    assert EvidenceState.from_bytes(through.to_bytes()) == through


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), before=st.integers(0, 5), heat=st.sampled_from([1.0, 3.0]))
def test_following_e_position_by_position_ends_where_the_shortcut_does(seed, before, heat):
    rng = np.random.default_rng(seed)
    rates = [HONEST, INT8, INT4][seed % 3]
    state = EvidenceState()
    for _ in range(before):
        state = advance(state, drawn(rng, rates), BETS)
    one = drawn(rng, rates, heat=heat)
    path, ended = trace(state, one, BETS), advance(state, one, BETS)
    assert ended.log_e == pytest.approx(path[-1], abs=1e-9)
    crossed = np.flatnonzero(path >= math.log(CONVICTION))
    if not state.convicted:
        expected = state.tokens + int(np.flatnonzero(~one.unsure)[crossed[0]]) + 1 if crossed.size else None
        assert ended.convicted_at == expected


def test_a_crossing_by_foretold_tokens_alone_is_found_though_the_rest_refutes_them():
    foretold = [NO_RIVALS ^ (15 << 12)] * 60
    wrong = [at < 15 for at in range(60)]  # too few for bets on mismatches as such
    one = observed(
        [0.033] * 60, wrong, rivals=foretold, claimed_rivals=[8 * mismatched for mismatched in wrong]
    )
    state = advance(EvidenceState(), one, BETS)
    assert state.log_e < 0.0
    assert state.convicted_at is not None
    assert state.convicted_at <= 15


def test_the_peak_is_the_highest_e_at_the_end_of_a_completion():
    rng = np.random.default_rng(8)
    state, highest = EvidenceState(), 0.0
    for number in range(30):
        state = advance(state, drawn(rng, INT8 if number < 4 else HONEST), BETS)
        highest = max(highest, state.log_e)
    assert state.log_peak == pytest.approx(highest, abs=1e-12)
    assert state.log_e < highest


def test_what_equals_an_edge_lies_above_it():
    assert gap_stratum(np.array([0.0, 0.0199, *GAP_EDGES, 10.0])).tolist() == [0, 0, *range(1, 9), 8]
    assert tail_stratum(np.array([0.0, *TAIL_EDGES, 1.0])).tolist() == [0, *range(1, 6), 5]


def test_stakes_are_put_down_little_by_little_and_never_used_up():
    kept = [reserve(completions) for completions in (0, 1, 2, 100, 10**6)]
    assert kept[0] == 1.0
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] > 0.03


def test_a_token_that_a_suspicion_foretold_says_more_than_any_other():
    """Six mismatches across small gaps say little; that each is what T + 0.05 would draw says much."""
    behind = [NO_RIVALS ^ (15 << 12)] * 40  # far behind under T+0.05, nowhere else
    wrong = [at < 6 for at in range(40)]
    foretold, others = (
        advance(
            EvidenceState(),
            observed([0.15] * 40, wrong, rivals=behind[:6] + [NO_RIVALS] * 34, claimed_rivals=claims),
            BETS,
        ).log_e
        for claims in ([8] * 6 + [0] * 34, [0] * 40)
    )
    assert foretold > others + 0.5
    missed = advance(
        EvidenceState(), observed([0.15] * 40, [False] * 40, rivals=behind, claimed_rivals=[0] * 40), BETS
    )
    assert missed.log_e < 0.0


def test_what_the_evidence_looks_like_is_said_in_words():
    rng = np.random.default_rng(3)
    int4, bug, hotter = EvidenceState(), EvidenceState(), EvidenceState()
    for _ in range(6):
        int4 = advance(int4, drawn(rng, INT4), BETS)
        bug = advance(bug, observed([3.0] * 50, [at == 25 for at in range(50)]), BETS)
        wrong = [at < 5 for at in range(50)]
        foretold = [NO_RIVALS ^ (15 << 12) if at < 5 else NO_RIVALS for at in range(50)]
        claims = [8 * one for one in wrong]
        hotter = advance(hotter, observed([0.15] * 50, wrong, rivals=foretold, claimed_rivals=claims), BETS)
    assert int4.looks_like.startswith("noise of")
    assert bug.looks_like.startswith("wrong tokens at")
    assert hotter.looks_like == "a temperature 0.05 higher than asked for"
    assert len(set(BET_WORDS)) == len(STAKES)


@pytest.mark.parametrize(
    "fields",
    [
        {"gaps": [math.nan]},
        {"gaps": [-0.1]},
        {"tail_mass": [1.1]},
        {"tail_mass": [-0.1]},
        {"in_tail": [True, False]},
        {"claimed_rivals": [1]},
    ],
)
def test_observations_that_cannot_be_are_refused(fields):
    usual = {
        "gaps": [0.1],
        "mismatched": [False],
        "unsure": [False],
        "tail_mass": [0.2],
        "in_tail": [False],
        "rivals": [NO_RIVALS],
        "claimed_rivals": [0],
    }
    with pytest.raises(ValueError, match="expected"):
        Observations(**{name: np.array(value) for name, value in (usual | fields).items()})


def test_a_state_that_cannot_be_is_refused():
    with pytest.raises(Exception, match="convicted_at"):
        EvidenceState.from_json({"tokens": 3, "convicted_at": 4})
