"""What honest runs say, and where it may be used."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.protocol.messages import Sampling
from targon.protocol.suspicions import NO_RIVALS, SUSPICIONS
from targon.verification.calibration import (
    TOLERANCE,
    Band,
    Calibration,
    CalibrationError,
    NoBand,
    Range,
    load_calibration,
    save_calibration,
)
from targon.verification.confidence import lower_limit, upper_limit
from targon.verification.measuring import UNKNOWN_RECURRENCE, HonestRun, measure
from tests.verification.completions import (
    GAPS,
    HONEST,
    INT8,
    SCOPE,
    band_with,
    drawn,
    measured,
    observed,
    run,
)

CALIBRATION = Calibration(
    model_digest="ab" * 32, engine="transformers", dtype="float32", bands=(band_with(),)
)


def sampling(**changes) -> Sampling:
    return Sampling(
        **(
            {"dialect": "targon/1", "seed": "00" * 8, "temperature": 0.8, "top_p": 0.95, "max_tokens": 64}
            | changes
        )
    )


def exactly(stratum: int, mismatches: int, positions: int) -> HonestRun:
    """A configuration with nothing but one stratum; its mismatches stand in completions of their own."""
    gap = float(GAPS[stratum])
    rest = observed([gap] * (positions - mismatches), [False] * (positions - mismatches))
    return HonestRun("one", [rest, *(observed([gap], [True]) for _ in range(mismatches))])


# confidence limits


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


# where it may be used


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dialect": "greedy", "temperature": 0.0, "top_p": 1.0}, "dialect greedy"),
        ({"temperature": 1.21}, "temperature 1.21 (calibrated: 0.05 to 1.2)"),
        ({"top_p": 0.5}, "top_p 0.5 (calibrated: 0.9 to 1)"),
        ({"top_k": 20}, "top_k 20 (calibrated: 0, 50)"),
        ({"max_tokens": 257}, "max_tokens 257 (calibrated: up to 256)"),
    ],
)
def test_parameters_outside_every_band_have_no_evidence_and_a_reason(changes, said):
    found = CALIBRATION.band_for(sampling(**changes), prompt_tokens=10)
    assert isinstance(found, NoBand)
    assert said in found.reason


def test_a_prompt_longer_than_any_that_was_measured_has_no_evidence():
    found = CALIBRATION.band_for(sampling(), prompt_tokens=513)
    assert found == NoBand("outside of what was calibrated: a prompt of 513 tokens (calibrated: up to 512)")


def test_a_replay_from_a_list_is_not_judged_by_bounds_of_whole_replays():
    found = CALIBRATION.band_for(sampling(), prompt_tokens=10, replay="list")
    assert found == NoBand("outside of what was calibrated: a replay from the list (calibrated: whole)")


@pytest.mark.parametrize(
    "changes", [{"temperature": 0.05}, {"temperature": 1.2}, {"top_k": 50}, {"max_tokens": 256}]
)
def test_the_ends_of_a_band_belong_to_it(changes):
    assert isinstance(CALIBRATION.band_for(sampling(**changes), prompt_tokens=512), Band)


def test_the_band_that_covers_a_request_is_found_among_several():
    warm = SCOPE.model_copy(update={"temperature": Range(low=1.2, high=2.0)})
    other = band_with().model_copy(update={"scope": warm})
    both = CALIBRATION.model_copy(update={"bands": (*CALIBRATION.bands, other)})
    assert both.band_for(sampling(temperature=1.5), prompt_tokens=10) == other


@pytest.mark.parametrize(
    "changed",
    [{"model_digest": "cd" * 32}, {"engine": "vllm"}, {"dtype": "bfloat16"}],
)
def test_another_reference_is_refused(changed):
    given_ = {"model_digest": "ab" * 32, "engine": "transformers", "dtype": "float32"}
    CALIBRATION.check_reference(**given_)
    with pytest.raises(CalibrationError, match="another reference"):
        CALIBRATION.check_reference(**(given_ | changed))


# the file


def test_a_saved_calibration_is_named_after_its_digest_and_comes_back_whole(tmp_path):
    made = Calibration(model_digest="ab" * 32, engine="e", dtype="float32", bands=(measured(50),))
    path = save_calibration(made, tmp_path)
    assert path.name == f"{made.digest()}.json"
    assert load_calibration(path) == made
    assert load_calibration(path, made.digest()) == made


def test_a_changed_file_is_refused(tmp_path):
    path = save_calibration(CALIBRATION, tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"bound":0.85', b'"bound":0.95'))
    with pytest.raises(CalibrationError, match="the file was changed or renamed"):
        load_calibration(path)


def test_another_calibration_than_the_one_asked_for_is_refused(tmp_path):
    path = save_calibration(CALIBRATION, tmp_path)
    with pytest.raises(CalibrationError, match="expected 0000"):
        load_calibration(path, "0" * 64)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b"\xff"])
def test_a_file_that_is_no_calibration_is_refused(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="not a calibration"):
        load_calibration(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="could not be read"):
        load_calibration(tmp_path / "none.json")


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="expected low <= high"):
        Range(low=1.0, high=0.5)


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
