"""The matrix's arithmetic, on answers whose verdicts are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from targon.protocol.conviction import CONVICTION
from targon.protocol.suspicions import NO_RIVALS
from targon.redteam.attacks import BY_NAME, Attack
from targon.redteam.judging import DIVERGENCE, EVIDENCE, EXACT, METHODS, STRUCTURE, SURPRISAL, Judged
from targon.redteam.matrix import LEAST_HONEST, make_row, usual_surprisals
from targon.redteam.streams import ENOUGH, Pool, growth, run_through, spread_of, tokens_to_conviction
from targon.verification import Observations, bets_of
from tests.redteam.conftest import tiny_calibration
from tests.tiny_engine import TinyEngine

LOG_CONVICTION = math.log(CONVICTION)
BETS = bets_of(tiny_calibration(TinyEngine().identity).bands[0])
ATTACK = Attack("some", "weights", "does something", goal=16)


def observations(mismatched: int, positions: int = 20) -> Observations:
    """So many mismatches first, all across gaps where honest rounding has none."""
    return Observations(
        gaps=np.full(positions, 3.0),
        mismatched=np.arange(positions) < mismatched,
        unsure=np.zeros(positions, bool),
        tail_mass=np.full(positions, np.nan),
        in_tail=np.zeros(positions, bool),
        rivals=np.full(positions, NO_RIVALS, np.uint32),
        claimed_rivals=np.zeros(positions, np.uint8),
    )


def judged(mismatched: int = 0, *, fails: tuple[str, ...] = (), surprisal: float = 1.0) -> Judged:
    return Judged(
        tokens=20,
        temperature=0.8,
        failed={method: method in fails for method in METHODS},
        surprisal=surprisal,
        agreement=1 - mismatched / 20,
        margin=0.1 * mismatched,
        evidence=(observations(mismatched), BETS),
    )


def row(answers, **more):
    return make_row(ATTACK, answers, usual={}, streams=40, most=2_000, **more)


def test_a_detection_rate_is_the_share_of_answers_that_fail():
    made = row([judged(fails=(EXACT,)), judged(fails=(EXACT, STRUCTURE)), judged(), judged()])
    assert (made.detection[EXACT], made.detection[STRUCTURE]) == (0.5, 0.25)
    assert all(made.detection[method] == 0.0 for method in DIVERGENCE.values())


def test_a_mixture_s_rates_are_those_of_its_parts_by_their_shares():
    made = row([judged(20, fails=(EXACT,))], beside=[judged(), judged()], share=0.05)
    assert made.detection[EXACT] == pytest.approx(0.05)
    assert made.detection[EVIDENCE] == pytest.approx(0.05)
    assert made.agreement == pytest.approx(0.95)
    assert made.margin == pytest.approx(0.05 * 2.0)
    assert (made.completions, made.tokens) == (3, 60)


def test_evidence_of_one_answer_counts_if_it_convicts_alone():
    made = row([judged(20), judged(0)])
    assert made.detection[EVIDENCE] == 0.5


def test_a_gross_cheat_is_convicted_in_every_stream_after_as_many_tokens_as_that_takes():
    made = row([judged(20)])
    state = run_through([(observations(20), BETS)])
    assert made.conviction is not None
    assert made.conviction.median == made.conviction.p95 == state.convicted_at == made.convicted_at
    assert made.conviction.convicted == 1.0
    assert made.peak == state.log_peak > LOG_CONVICTION


def test_an_honest_prover_is_never_convicted_and_never_said_to_be():
    made = make_row(BY_NAME["honest-bf16"], [judged()] * 5, usual={}, streams=20, most=3_000)
    assert made.conviction is not None
    assert (made.conviction.convicted, made.conviction.median, made.conviction.p95) == (0.0, None, None)
    assert made.convicted_at is None


def test_answers_without_evidence_are_counted_and_leave_the_rest_to_judge():
    made = row([judged(20), replace(judged(), evidence=None)])
    assert made.outside == 1
    assert made.detection[EVIDENCE] == 0.5
    assert made.conviction is not None


def test_with_no_evidence_at_all_there_is_nothing_to_draw():
    made = row([replace(judged(), evidence=None)])
    assert made.conviction is None
    assert made.growth is None


def test_surprisal_flags_what_lies_outside_of_honest_answers_on_either_side():
    usual = usual_surprisals([judged(surprisal=value) for value in np.linspace(1.0, 2.0, 1_001)])
    assert usual[0.8] == pytest.approx((1.005, 1.995))
    answers = [judged(surprisal=value) for value in (1.0, 1.5, 2.0, 3.0)]
    made = make_row(ATTACK, answers, usual=usual, streams=5, most=100)
    assert made.detection[SURPRISAL] == 0.75


def test_surprisal_is_not_known_where_hardly_an_honest_answer_is_like_it():
    assert row([judged()]).detection[SURPRISAL] is None
    assert usual_surprisals([judged()] * (LEAST_HONEST - 1)) == {}
    assert usual_surprisals([judged()] * LEAST_HONEST) == {0.8: (1.0, 1.0)}


def test_quantiles_are_tokens_of_streams_and_none_beyond_the_end():
    spread = spread_of(np.array([10.0] * 50 + [30.0] * 45 + [np.inf] * 5))
    assert (spread.median, spread.p95, spread.convicted) == (10, 30, 0.95)
    spread = spread_of(np.array([10.0] * 40 + [np.inf] * 60))
    assert (spread.median, spread.p95, spread.convicted) == (None, None, 0.4)


def test_a_stream_is_ended_at_its_limit():
    pool = Pool([(observations(1), BETS)])
    enough = tokens_to_conviction(pool, np.random.default_rng(1), 1, most=100_000).median
    assert enough is not None
    assert enough > 20
    assert tokens_to_conviction(pool, np.random.default_rng(1), 1, most=enough - 1).median is None


def test_true_answers_are_taken_once_each_in_another_order():
    answers = [(observations(place, 10), BETS) for place in range(5)]
    pool = Pool(answers, once=True)
    drawn = list(pool.draw(np.random.default_rng(1)))
    assert drawn != answers
    assert sorted(map(id, drawn)) == sorted(map(id, answers))
    assert (pool.limit(30), pool.limit(1_000)) == (30, 50)


def test_a_pool_draws_cheats_by_their_share():
    cheat, honest = (observations(1), BETS), (observations(0), BETS)
    draws = Pool([cheat], [honest], 0.2).draw(np.random.default_rng(3))
    assert 0.17 < np.mean([next(draws) is cheat for _ in range(4_000)]) < 0.23


def test_the_growth_passes_the_bound_where_the_evidence_convicts():
    answer = (observations(20, 40), BETS)
    grown = growth(Pool([answer]), np.random.default_rng(1), streams=3, most=400)
    convicted_at = run_through([answer]).convicted_at
    assert convicted_at is not None
    before = [value for place, value in zip(grown.tokens, grown.median, strict=True) if place < convicted_at]
    after = [value for place, value in zip(grown.tokens, grown.median, strict=True) if place >= convicted_at]
    assert max(before) < LOG_CONVICTION <= after[0]
    assert max(grown.high) <= ENOUGH
    assert grown.low == grown.median == grown.high  # all streams are alike
