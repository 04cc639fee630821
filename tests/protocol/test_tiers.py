"""The tier table and the rules by which a prover moves."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol.profile import DEMO, STANDARD, Profile
from targon.protocol.tiers import TIERS, Record, Tier, settle

PROFILE = STANDARD


def record(
    tier: Tier,
    successes: int,
    attempts: int,
    *,
    total: int = 10_000,
    replies: int | None = None,
    inconclusive: int = 0,
    fallen_from: Tier | None = None,
) -> Record:
    return Record(
        tier=tier,
        attempts=attempts,
        successes=successes,
        replies=attempts if replies is None else replies,
        inconclusive=inconclusive,
        total_successes=total,
        fallen_from=fallen_from,
    )


def test_the_table_is_the_published_one() -> None:
    rows = [
        (t.label, float(r.success_rate), r.request_limit, r.reward_factor, r.similarity_threshold)
        for t, r in TIERS.items()
    ]
    assert rows == [
        ("Challenger", 0.98, 25_000, 1.000, 0.95),
        ("Grandmaster", 0.92, 22_500, 0.980, 0.92),
        ("Master", 0.88, 20_000, 0.960, 0.88),
        ("Jade", 0.84, 17_500, 0.940, 0.84),
        ("Ruby", 0.82, 15_000, 0.920, 0.82),
        ("Emerald", 0.80, 12_500, 0.900, 0.80),
        ("Diamond", 0.78, 10_000, 0.888, 0.78),
        ("Platinum", 0.76, 7_500, 0.777, 0.76),
        ("Gold", 0.74, 5_000, 0.666, 0.74),
        ("Silver", 0.72, 1_000, 0.555, 0.72),
        ("Bronze", 0.70, 500, 0.444, 0.70),
    ]


def test_the_minima_are_the_published_ones() -> None:
    assert [STANDARD.success_minima[tier] for tier in TIERS] == [
        4_000, 2_000, 1_850, 1_700, 1_500, 1_250, 1_000, 750, 500, 250, 0,
    ]  # fmt: skip


def test_everything_in_the_table_rises_with_the_tier() -> None:
    rows = [TIERS[tier] for tier in Tier]
    for lower, higher in itertools.pairwise(rows):
        assert lower.success_rate < higher.success_rate
        assert lower.request_limit < higher.request_limit
        assert lower.reward_factor < higher.reward_factor
        assert lower.similarity_threshold < higher.similarity_threshold


# -- promotion -----------------------------------------------------------------------------------------


def test_a_prover_is_promoted_when_it_meets_the_next_rate_and_minimum() -> None:
    after, move = settle(record(Tier.BRONZE, 72, 100, total=250), PROFILE)
    assert (after.tier, move.kind) == (Tier.SILVER, "promoted")
    assert move.why == "72 of 100 attempts succeeded; Silver asks for 72% and 250 successes in all"


def test_a_prover_is_promoted_one_tier_at_a_time() -> None:
    after, _ = settle(record(Tier.BRONZE, 100, 100), PROFILE)
    assert after.tier is Tier.SILVER


def test_one_success_short_of_the_minimum_is_no_promotion() -> None:
    after, move = settle(record(Tier.BRONZE, 100, 100, total=249), PROFILE)
    assert (after.tier, move.kind) == (Tier.BRONZE, "stayed")
    assert "250 successes in all, it has 249" in move.why


@pytest.mark.parametrize(("successes", "tier"), [(98, Tier.CHALLENGER), (97, Tier.GRANDMASTER)])
def test_a_rate_of_98_percent_means_exactly_98_of_100(successes: int, tier: Tier) -> None:
    after, _ = settle(record(Tier.GRANDMASTER, successes, 100), PROFILE)
    assert after.tier is tier


@pytest.mark.parametrize("tier", [tier for tier in Tier if tier > Tier.BRONZE])
def test_every_rate_is_met_exactly_at_its_boundary_whatever_the_scale(tier: Tier) -> None:
    rate = TIERS[tier].success_rate
    for scale in (50, 100, 1_000_000, 10**15):
        exact = rate * scale
        assert exact.denominator == 1
        assert settle(record(tier, int(exact), scale, total=10**16), PROFILE)[0].tier >= tier
        assert settle(record(tier, int(exact) - 1, scale, total=10**16), PROFILE)[0].tier == tier - 1


def test_the_highest_tier_has_nowhere_to_go() -> None:
    after, move = settle(record(Tier.CHALLENGER, 100, 100), PROFILE)
    assert after.tier is Tier.CHALLENGER
    assert "there is no higher tier" in move.why


def test_ten_percent_inconclusive_still_promotes_and_more_does_not() -> None:
    at_the_limit = record(Tier.BRONZE, 90, 90, inconclusive=10)
    above = record(Tier.BRONZE, 90, 90, inconclusive=11)
    assert settle(at_the_limit, PROFILE)[1].kind == "promoted"
    after, move = settle(above, PROFILE)
    assert (after.tier, move.kind) == (Tier.BRONZE, "stayed")
    assert "11 more were inconclusive, over 10% of all sent" in move.why


def test_inconclusive_attempts_do_not_touch_the_rate() -> None:
    after, _ = settle(record(Tier.GOLD, 74, 100, total=500, inconclusive=10_000), PROFILE)
    assert after.tier is Tier.GOLD


# -- relegation ----------------------------------------------------------------------------------------


def test_a_prover_is_relegated_one_tier_when_it_misses_its_rate() -> None:
    after, move = settle(record(Tier.GOLD, 0, 100), PROFILE)
    assert (after.tier, move.kind) == (Tier.SILVER, "relegated")
    assert move.why == "0 of 100 attempts succeeded; Gold asks for 74%"


def test_the_lowest_tier_has_nowhere_to_fall() -> None:
    after, move = settle(record(Tier.BRONZE, 0, 100), PROFILE)
    assert (after.tier, move.kind) == (Tier.BRONZE, "stayed")
    assert "there is no lower tier" in move.why


def test_a_prover_that_meets_its_own_rate_but_not_the_next_stays() -> None:
    after, move = settle(record(Tier.GOLD, 75, 100), PROFILE)
    assert (after.tier, move.kind) == (Tier.GOLD, "stayed")
    assert (
        move.why
        == "75 of 100 attempts succeeded; Platinum asks for 76% and 750 successes in all, it has 10,000"
    )


# -- downtime ------------------------------------------------------------------------------------------


def down(tier: Tier, fallen_from: Tier | None = None) -> Record:
    return record(tier, 0, 100, replies=0, fallen_from=fallen_from)


def test_a_prover_relegated_while_down_returns_at_once_when_it_answers_again() -> None:
    standing = down(Tier.CHALLENGER)
    for _ in range(3):
        standing, move = settle(standing, PROFILE)
        assert move.kind == "relegated"
        assert move.why.startswith("it was down; ")
        standing = down(standing.tier, standing.fallen_from)
    assert standing.tier is Tier.JADE
    after, move = settle(record(Tier.JADE, 100, 100, fallen_from=standing.fallen_from), PROFILE)
    assert (after.tier, after.fallen_from, move.kind) == (Tier.CHALLENGER, None, "returned")
    assert move.why.startswith("it answers again; 100 of 100")


def test_it_returns_to_the_highest_tier_whose_rate_it_meets() -> None:
    after, move = settle(record(Tier.JADE, 93, 100, fallen_from=Tier.CHALLENGER), PROFILE)
    assert (after.tier, move.kind) == (Tier.GRANDMASTER, "returned")


def test_it_returns_without_the_minimum() -> None:
    after, _ = settle(record(Tier.JADE, 100, 100, total=100, fallen_from=Tier.CHALLENGER), PROFILE)
    assert after.tier is Tier.CHALLENGER


def test_it_never_returns_above_the_tier_it_held() -> None:
    after, _ = settle(record(Tier.SILVER, 100, 100, fallen_from=Tier.PLATINUM), PROFILE)
    assert after.tier is Tier.PLATINUM


def test_an_outage_that_ends_within_an_interval_does_not_cost_the_return() -> None:
    half_silent = record(Tier.JADE, 50, 100, replies=50, fallen_from=Tier.CHALLENGER)
    after, move = settle(half_silent, PROFILE)
    assert (after.tier, after.fallen_from, move.kind) == (Tier.RUBY, Tier.CHALLENGER, "relegated")


def test_wrong_answers_cost_the_return() -> None:
    after, _ = settle(record(Tier.JADE, 50, 100, fallen_from=Tier.CHALLENGER), PROFILE)
    assert (after.tier, after.fallen_from) == (Tier.RUBY, None)


def test_a_prover_relegated_for_its_answers_has_no_right_to_return() -> None:
    after, _ = settle(record(Tier.CHALLENGER, 1, 100), PROFILE)
    assert after.fallen_from is None


def test_a_prover_down_in_the_lowest_tier_fell_from_nowhere() -> None:
    after, move = settle(down(Tier.BRONZE), PROFILE)
    assert (after.tier, after.fallen_from, move.kind) == (Tier.BRONZE, None, "stayed")


# -- few attempts --------------------------------------------------------------------------------------


def test_with_few_attempts_nothing_moves_and_the_counters_run_on() -> None:
    before = record(Tier.BRONZE, 19, 19, inconclusive=3)
    after, move = settle(before, PROFILE)
    assert after == before
    assert move.why == "19 attempts, and a move asks for 20: the counters run on"


def test_with_enough_attempts_the_counters_reset_and_the_total_carries_over() -> None:
    after, _ = settle(record(Tier.BRONZE, 20, 20, total=20), PROFILE)
    assert after == Record(total_successes=20)


def test_a_record_that_cannot_be_is_refused() -> None:
    for fields in (
        {"successes": 2, "replies": 1, "attempts": 2, "total_successes": 2},
        {"replies": 3, "attempts": 2},
        {"inconclusive": -1},
        {"successes": 1, "replies": 1, "attempts": 1},
        {"fallen_from": Tier.BRONZE},
    ):
        with pytest.raises(ValueError, match="expected 0 <= successes"):
            Record(**fields)


# -- laws ----------------------------------------------------------------------------------------------


@st.composite
def records(draw: st.DrawFn) -> Record:
    attempts = draw(st.integers(0, 200))
    replies = draw(st.integers(0, attempts))
    successes = draw(st.integers(0, replies))
    tier = draw(st.sampled_from(Tier))
    above = [t for t in Tier if t > tier]
    return Record(
        tier=tier,
        attempts=attempts,
        replies=replies,
        successes=successes,
        inconclusive=draw(st.integers(0, 50)),
        total_successes=successes + draw(st.integers(0, 5_000)),
        fallen_from=draw(st.sampled_from(above) | st.none()) if above else None,
    )


profiles = st.sampled_from([STANDARD, DEMO])


@given(records(), profiles)
def test_no_tier_is_reached_without_its_success_rate(before: Record, profile: Profile) -> None:
    after, move = settle(before, profile)
    if after.tier > before.tier:
        assert Fraction(before.successes, before.attempts) >= TIERS[after.tier].success_rate
        assert before.attempts >= profile.min_attempts
    if move.kind == "promoted":
        assert before.total_successes >= profile.success_minima[after.tier]
        assert 10 * before.inconclusive <= before.attempts + before.inconclusive


@given(records(), profiles)
def test_a_move_is_one_tier_but_for_a_return_and_is_named_truly(before: Record, profile: Profile) -> None:
    after, move = settle(before, profile)
    step = after.tier - before.tier
    assert (move.before, move.after) == (before.tier, after.tier)
    assert {"promoted": step == 1, "relegated": step == -1, "stayed": step == 0, "returned": step > 0}[
        move.kind
    ]
    assert move.kind != "returned" or after.tier <= (before.fallen_from or Tier.BRONZE)


@given(records(), profiles)
def test_total_successes_carry_over_and_a_settled_record_can_be_settled_again(
    before: Record, profile: Profile
) -> None:
    after, _ = settle(before, profile)
    assert after.total_successes == before.total_successes
    assert after.attempts in (0, before.attempts)
    again, move = settle(after, profile)
    assert again == after
    assert move.kind == "stayed"


@given(records(), profiles, st.integers(1, 20))
def test_more_successes_never_end_in_a_lower_tier(before: Record, profile: Profile, more: int) -> None:
    better = Record(
        tier=before.tier,
        attempts=before.attempts,
        replies=max(before.replies, min(before.successes + more, before.attempts)),
        successes=min(before.successes + more, before.attempts),
        inconclusive=before.inconclusive,
        total_successes=before.total_successes + more,
        fallen_from=before.fallen_from,
    )
    assert settle(better, profile)[0].tier >= settle(before, profile)[0].tier
