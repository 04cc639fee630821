"""What honest runs say: the bounds that they set."""

from __future__ import annotations

import numpy as np
import pytest

from targon.protocol.suspicions import NO_RIVALS, SUSPICIONS
from targon.verification.calibration import (
    TOLERANCE,
    CalibrationError,
)
from targon.verification.confidence import lower_limit, upper_limit
from targon.verification.measuring import UNKNOWN_RECURRENCE, HonestRun, measure
from tests.verification.completions import (
    GAPS,
    HONEST,
    INT8,
    SCOPE,
    drawn,
    measured,
    observed,
    run,
)


def exactly(stratum: int, mismatches: int, positions: int) -> HonestRun:
    """A configuration with nothing but one stratum; its mismatches stand in completions of their own."""
    gap = float(GAPS[stratum])
    rest = observed([gap] * (positions - mismatches), [False] * (positions - mismatches))
    return HonestRun("one", [rest, *(observed([gap], [True]) for _ in range(mismatches))])


# bounds


def test_a_bound_is_the_tolerance_times_a_limit_above_what_was_seen():
    bound = measure(SCOPE, [exactly(4, 30, 1000)]).gaps[4].bound
    assert bound > TOLERANCE * upper_limit(30, 1000, 0.001)
    assert bound < TOLERANCE * upper_limit(30, 1000, 1e-6)


def test_the_worst_configuration_sets_the_bound():
    good, bad = run("fp32", 0.1 * HONEST, 300), run("bf16", HONEST, 300)
    alone, both = measure(SCOPE, [bad]), measure(SCOPE, [good, bad])
    assert all(one.bound >= other.bound for one, other in zip(both.gaps, alone.gaps, strict=True))
    assert both.gaps[1].bound == pytest.approx(alone.gaps[1].bound, rel=0.05)
    assert [named.name for named in both.configurations] == ["fp32", "bf16"]


def test_a_configuration_of_which_little_was_seen_widens_nothing_by_that_alone():
    much, little = run("bf16", HONEST, 1500), run("alone", HONEST, 20, seed=2)
    alone, both = measure(SCOPE, [much]), measure(SCOPE, [much, little])
    assert all(b.bound < 1.2 * a.bound for a, b in zip(alone.gaps, both.gaps, strict=True))
    assert all(b.most < 1.2 * a.most for a, b in zip(alone.tails[1:], both.tails[1:], strict=True))


def test_one_that_contradicts_the_others_is_heard_however_little_was_seen_of_it():
    much, odd = run("bf16", HONEST, 1500), run("odd", INT8, 20, seed=2)
    alone, both = measure(SCOPE, [much]), measure(SCOPE, [much, odd])
    assert both.gaps[4].bound > 5 * alone.gaps[4].bound


def test_the_margin_is_what_hardly_any_honest_token_misses_by():
    misses = np.concatenate([np.zeros(9_900), np.linspace(0.0, 0.4, 100)])
    band = measure(SCOPE, [HonestRun("bf16", run("x", HONEST, 5).completions, misses)])
    assert band.margin == pytest.approx(TOLERANCE * 0.36, rel=0.02)


def test_the_margin_is_that_of_the_worst_configuration():
    runs = [
        HonestRun(name, run(name, HONEST, 5).completions, np.full(9, miss))
        for name, miss in (("a", 0.2), ("b", 0.1))
    ]
    assert measure(SCOPE, runs).margin == pytest.approx(TOLERANCE * 0.2)


def test_more_honest_data_sharpens_the_bounds():
    few, many = measured(100), measured(1600)
    assert all(b.bound < a.bound for a, b in zip(few.gaps, many.gaps, strict=True) if a.bound < 1.0)
    assert many.recurrence < few.recurrence


def test_a_stratum_without_data_has_no_bound_below_one():
    assert measure(SCOPE, [exactly(0, 3, 30)]).gaps[0].bound < 1.0
    assert measure(SCOPE, [exactly(3, 3, 30)]).gaps[0].bound == 1.0


def test_a_wide_gap_borrows_the_positions_of_narrower_ones():
    quiet = HonestRun("quiet", [observed([1.5] * 5000 + [5.0] * 100, [False] * 5100)])
    band = measure(SCOPE, [quiet])
    assert band.gaps[8].bound < 1.1 * band.gaps[6].bound


def test_a_wide_gap_borrows_nothing_where_it_is_seen_to_be_worse():
    odd = HonestRun(
        "odd", [observed([1.5] * 5000 + [5.0] * 100, [False] * 5000 + [True] * 30 + [False] * 70)]
    )
    assert measure(SCOPE, [odd]).gaps[8].bound > TOLERANCE * 0.3


def test_unsure_positions_say_nothing():
    clear = observed([0.3] * 100, [False] * 100)
    doubtful = observed([0.3] * 200, [False] * 100 + [True] * 100, unsure=[False] * 100 + [True] * 100)
    one, other = (measure(SCOPE, [HonestRun("x", [c])]).gaps for c in (clear, doubtful))
    assert one == other


def test_completions_that_differ_show_as_recurrence():
    rng = np.random.default_rng(5)
    alike = HonestRun("alike", [drawn(rng, HONEST) for _ in range(1500)])
    differing = [drawn(rng, np.minimum(0.6, HONEST * (6.0 if n % 8 == 0 else 0.28))) for n in range(1500)]
    even, uneven = (measure(SCOPE, [r]).recurrence for r in (alike, HonestRun("differing", differing)))
    assert TOLERANCE <= even < 3.0
    assert 3.0 < uneven < UNKNOWN_RECURRENCE


def test_a_configuration_that_is_worse_throughout_shows_no_recurrence_by_that():
    quiet, noisy = run("quiet", 0.2 * HONEST, 1000, seed=1), run("noisy", HONEST, 1000, seed=2)
    mixed = HonestRun("mixed", [*quiet.completions, *noisy.completions])
    assert measure(SCOPE, [quiet, noisy]).recurrence < 0.9 * measure(SCOPE, [mixed]).recurrence


def test_without_a_second_mismatch_to_go_by_recurrence_is_taken_as_high():
    assert measure(SCOPE, [run("exact", np.zeros(9), 10)]).recurrence == UNKNOWN_RECURRENCE


def test_tails_are_bounded_on_both_sides():
    band = measured(1600)
    seen = [tail for tail in band.tails if tail.positions > 5000]
    assert len(seen) >= 4
    for tail in seen:
        per_mass = tail.positions / tail.expected
        assert (
            0.7
            < tail.least
            < 1.0 - TOLERANCE * (1.0 - per_mass * lower_limit(tail.hits, tail.positions, 0.001))
        )
        assert (
            1.6
            > tail.most
            > 1.0 + TOLERANCE * (per_mass * upper_limit(tail.hits, tail.positions, 0.001) - 1.0)
        )


def test_where_no_tail_was_seen_nothing_is_bet_on_it():
    band = measure(SCOPE, [HonestRun("greedy", [observed([0.5] * 10, [False] * 10)])])
    assert all(tail.least == 0.0 and tail.most > 1e8 for tail in band.tails)


@pytest.mark.parametrize("runs", [[], [HonestRun("none", [])], [HonestRun("empty", [observed([], [])])]])
def test_nothing_measured_is_refused(runs):
    with pytest.raises(CalibrationError, match="without positions"):
        measure(SCOPE, runs)


def test_int8_lies_above_the_bounds_that_honest_runs_set():
    bounds = np.array([stratum.bound for stratum in measured(1600).gaps])
    assert (bounds > HONEST).all()
    assert ((bounds < INT8) == [False, True, True, True, True, True, False, False, False]).all()


def test_a_scope_of_which_little_was_seen_borrows_from_the_others():
    little, much = run("bf16", HONEST, 40, seed=3), run("bf16", HONEST, 1500)
    alone, with_others = measure(SCOPE, [little]), measure(SCOPE, [little], [much])
    assert all(b.bound < 0.3 * a.bound for a, b in zip(alone.gaps[5:], with_others.gaps[5:], strict=True))
    assert with_others.recurrence < alone.recurrence
    assert with_others.gaps[8].positions == alone.gaps[8].positions


def test_a_scope_that_contradicts_the_others_goes_by_its_own():
    odd, much = run("greedy", np.minimum(0.9, 3.0 * HONEST), 300, seed=3), run("bf16", HONEST, 1500)
    band = measure(SCOPE, [odd], [much])
    assert band.gaps[1].bound > TOLERANCE * 0.5
    assert band.gaps[2].bound > TOLERANCE * 0.28


def test_a_scope_is_heard_whose_configurations_contradict_the_others_only_together():
    own = [exactly(5, 1, 20) for _ in range(10)]
    others = [exactly(5, 0, 2_000)]
    assert measure(SCOPE, own[:1], others).gaps[5].bound < 0.05
    assert measure(SCOPE, own, others).gaps[5].bound > TOLERANCE * upper_limit(10, 200, 0.001)


def test_a_scope_whose_mismatches_recur_more_than_elsewhere_goes_by_its_own():
    gaps = [float(GAPS[5])] * 40
    twice, never = [True, True] + [False] * 38, [False] * 40
    once = [True] + [False] * 39
    own = HonestRun("own", [observed(gaps, twice)] * 8 + [observed(gaps, never)] * 200)
    others = HonestRun("others", [observed(gaps, once)] * 400 + [observed(gaps, never)] * 4_000)
    alone, heard = measure(SCOPE, [own]), measure(SCOPE, [own], [others])
    assert heard.recurrence == pytest.approx(alone.recurrence, rel=0.05)
    assert heard.recurrence > 3.0


def test_a_configuration_whose_tails_contradict_the_others_is_heard():
    rng = np.random.default_rng(3)
    hot = HonestRun("hot", [drawn(rng, HONEST, heat=4.0) for _ in range(40)])
    much = run("bf16", HONEST, 1_500)
    alone, both = measure(SCOPE, [much]), measure(SCOPE, [much, hot])
    assert both.tails[2].most > 2.0 * alone.tails[2].most


# rivals


def with_rivals(claimed: float, *, name: str = "bf16", rivals: int = 4_000, seed: int = 2) -> HonestRun:
    """Honest positions of one stratum, a tenth of them with a rival that T + 0.2 would draw, and how often it is
    claimed; elsewhere one in a thousand mismatches."""
    rng = np.random.default_rng(seed)
    positions = 10 * rivals
    codes = np.where(np.arange(positions) % 10 == 0, NO_RIVALS ^ (15 << 20), NO_RIVALS)
    wrong = rng.random(positions) < np.where(codes == NO_RIVALS, 0.001, claimed)
    claims = 32 * (wrong & (codes != NO_RIVALS))
    return HonestRun(
        name,
        [observed([0.33] * positions, wrong.tolist(), rivals=codes.tolist(), claimed_rivals=claims.tolist())],
    )


def test_a_rival_s_bound_is_of_rivals_alone_on_its_own_side():
    band = measure(SCOPE, [with_rivals(0.05)])
    assert band.gaps[4].bound < 0.02
    assert band.gaps[3].bound == 1.0  # no positions
    hotter, colder, other = (band.rivals[SUSPICIONS.index(name)] for name in ("T+0.2", "T-0.2", "T+0.1"))
    assert TOLERANCE * 0.05 < hotter.behind[4] < 0.12
    assert hotter == colder  # rounding knows no direction
    assert hotter.close[4] == other.behind[4] == 1.0  # none were seen


def test_a_rival_s_bound_is_no_more_than_that_of_mismatches_across_smaller_gaps():
    """Unless it stands beyond the cut: there it is no near-tie."""
    band = measured()
    for one in band.rivals:
        assert one.close[8] == band.gaps[7].bound
    assert band.rivals[0].behind[8] == band.gaps[7].bound
    assert band.rivals[-1].behind[8] == 1.0


def test_the_fewer_rivals_were_seen_the_wider_their_bound():
    few, many = (
        measure(SCOPE, [with_rivals(0.01, rivals=count)]).rivals[5].behind[4] for count in (100, 10_000)
    )
    assert few > 0.1 > 0.03 > many > TOLERANCE * 0.01


def test_rivals_of_a_configuration_that_contradicts_the_others_are_heard():
    usual = with_rivals(0.001, rivals=40_000)
    worse = with_rivals(0.2, name="worse", rivals=200)
    alone, both = (measure(SCOPE, runs).rivals[5].behind[4] for runs in ([usual], [usual, worse]))
    assert alone < 0.01
    assert both > TOLERANCE * 0.2


def test_rivals_beyond_the_cut_are_bounded_whatever_the_gap():
    """Where honest engines never claim them, few in one stratum borrow from all others."""
    codes = [NO_RIVALS ^ (15 << 24)] * 5_000
    gaps = [0.01] * 20 + [3.0] * 4_980
    band = measure(SCOPE, [HonestRun("bf16", [observed(gaps, [False] * 5_000, rivals=codes)])])
    assert band.rivals[-1].behind[0] == band.rivals[-1].behind[7] < 0.01
    assert band.rivals[-1].close[0] == 1.0
