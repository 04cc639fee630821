"""What the fold makes of a history."""

from __future__ import annotations

from fractions import Fraction

import pytest

from targon.ledger import InvalidHistory, Standings
from targon.protocol import rewards
from targon.protocol.profile import DEMO
from targon.protocol.tiers import Tier
from targon.protocol.weights import NoWeights
from tests.ledger.history import (
    ALICE,
    BOB,
    CAROL,
    MODEL,
    History,
    attempt,
    interval_closed,
    interval_opened,
    joined,
    left,
    log_opened,
    passes,
    skipped,
    step_closed,
    verdict,
    weights_not_set,
    weights_set,
)


def test_a_new_prover_begins_in_bronze_with_nothing() -> None:
    alice = History.begun(ALICE).standings.prover(ALICE)
    assert alice is not None
    assert (alice.uid, alice.tier, alice.score, alice.attempts) == (0, Tier.BRONZE, 0.0, 0)
    assert alice.on_probation
    assert alice.success_rate is None
    assert alice.requests_left == 500


def test_an_attempt_counts_as_sent_at_once_and_as_an_attempt_with_its_verdict() -> None:
    history = History.begun(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1))
    before = history.standings.prover(ALICE)
    assert before is not None
    assert (before.sent, before.attempts, before.requests_left) == (1, 0, 499)
    assert list(history.standings.open_attempts) == [number]
    history.add(verdict(number))
    after = history.standings.prover(ALICE)
    assert after is not None
    assert (after.attempts, after.successes, after.total_successes, after.verified_tokens) == (1, 1, 1, 64)
    assert not history.standings.open_attempts


def test_the_success_rate_is_that_of_the_running_interval() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "pass"), (ALICE, "fail"), (ALICE, "inconclusive"))
    assert history.standings.provers()[0].success_rate == Fraction(1, 2)


def test_the_last_verdict_is_kept_with_its_reason() -> None:
    history = History.begun(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1), verdict(number, "fail", reason="token 3 differs"))
    last = history.standings.provers()[0].last_verdict
    assert last is not None
    assert (last.seq, last.outcome, last.reason) == (number + 1, "fail", "token 3 differs")


def test_an_inconclusive_verdict_counts_for_nothing() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "pass"))
    score = history.standings.provers()[0].score
    history.step(2, (ALICE, "inconclusive"))
    alice = history.standings.provers()[0]
    assert (alice.attempts, alice.inconclusive, alice.sent) == (1, 1, 2)
    assert alice.score == score


def test_a_failed_verdict_verifies_no_tokens() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "fail"))
    assert history.standings.provers()[0].verified_tokens == 0


def test_a_score_takes_one_step_per_block_with_the_sum() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "pass"), (ALICE, "pass"), (ALICE, "fail"))
    x = rewards.served(0.444, None, None)
    expected = rewards.score_step(0.0, [x, x, -0.1], DEMO.ema_alpha)
    assert history.standings.provers()[0].score == expected


def test_a_score_stands_still_in_a_block_without_work() -> None:
    history = History.begun(ALICE, BOB).step(1, (ALICE, "pass"), (BOB, "pass")).step(2, (BOB, "pass"))
    alice, bob = history.standings.provers()
    assert 0 < alice.score < bob.score


def test_blocks_that_close_together_take_a_step_each() -> None:
    history = History.begun(ALICE)
    first = history.next
    history.add(attempt(ALICE, 1), attempt(ALICE, 2), verdict(first), verdict(first + 1), step_closed(2))
    one_by_one = History.begun(ALICE).step(1, (ALICE, "pass")).step(2, (ALICE, "pass"))
    assert history.standings.provers()[0].score == one_by_one.standings.provers()[0].score


def test_a_failed_inference_costs_more_than_it_earned() -> None:
    history = History.begun(ALICE).step(1, *passes(ALICE, 3))
    number = history.next
    history.add(attempt(ALICE, 2, purpose="inference"), verdict(number, "fail"), step_closed(2))
    history_of_challenge = History.begun(ALICE).step(1, *passes(ALICE, 3)).step(2, (ALICE, "fail"))
    assert history.standings.provers()[0].score < history_of_challenge.standings.provers()[0].score


def test_native_work_is_sent_and_shown_but_counts_for_nothing() -> None:
    history = History.begun(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1, dialect="native"), verdict(number), step_closed(1))
    alice = history.standings.provers()[0]
    assert (alice.sent, alice.attempts, alice.total_successes, alice.verified_tokens) == (1, 0, 0, 0)
    assert (alice.score, alice.inconclusive, alice.evidence) == (0.0, 0, None)
    assert (alice.native, alice.native_replies) == (1, 1)
    assert alice.last_verdict is not None


def test_silence_under_a_native_request_costs_nothing_and_is_shown() -> None:
    history = History.begun(ALICE).step(1, *passes(ALICE, 3))
    before = history.standings.provers()[0]
    number = history.next
    history.add(attempt(ALICE, 2, dialect="native", purpose="inference"))
    history.add(verdict(number, "fail", replied=False), step_closed(2)).turn(0, 10)
    after = history.standings.provers()[0]
    assert (after.native, after.native_replies) == (1, 0)
    assert (after.score, after.total_successes, after.settled_attempts) == (before.score, 3, 3)


def test_speed_is_measured_against_the_previous_intervals_median() -> None:
    history = History.begun(ALICE, BOB)
    first = history.next
    history.add(attempt(ALICE, 1), attempt(BOB, 1))
    history.add(verdict(first, speed=10.0), verdict(first + 1, speed=30.0), step_closed(1))
    alice, bob = history.standings.provers()
    assert alice.score == bob.score
    assert history.standings.medians == {}
    history.turn(0, 10)
    assert history.standings.medians == {MODEL: 20.0}
    number = history.next
    event = attempt(ALICE, 11)
    history.add(event)
    fast = verdict(number, speed=40.0)
    assert history.standings.worth(event, fast) == rewards.served(0.444, 40.0, 20.0)


def test_a_failed_answers_speed_is_no_measure() -> None:
    history = History.begun(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1), verdict(number, "fail", speed=1e6), step_closed(1)).turn(0, 10)
    assert history.standings.medians == {}


def test_an_interval_ends_with_promotion_and_fresh_counters() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "pass"), (ALICE, "pass")).turn(0, 10)
    alice = history.standings.provers()[0]
    assert (alice.tier, alice.attempts, alice.sent, alice.total_successes) == (Tier.SILVER, 0, 0, 2)
    assert (alice.settled_attempts, alice.settled_successes) == (2, 2)
    assert alice.success_rate == 1


def test_too_few_attempts_run_on_into_the_next_interval() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "pass")).turn(0, 10)
    alice = history.standings.provers()[0]
    assert (alice.tier, alice.attempts, alice.sent) == (Tier.BRONZE, 1, 0)
    alice = history.step(11, (ALICE, "pass")).turn(1, 20).standings.provers()[0]
    assert (alice.tier, alice.attempts) == (Tier.SILVER, 0)


def test_an_outage_is_made_good_when_the_prover_answers_again() -> None:
    history = History.begun(ALICE)
    for interval in range(3):
        history.step(10 * interval + 1, *passes(ALICE, 2)).turn(interval, 10 * interval + 10)
    for interval in range(3, 5):
        first = history.next
        block = 10 * interval + 1
        history.add(attempt(ALICE, block), attempt(ALICE, block))
        history.add(*(verdict(first + i, "fail", replied=False) for i in range(2)))
        history.add(step_closed(block)).turn(interval, block + 9)
    alice = history.standings.provers()[0]
    assert (alice.tier, alice.fallen_from) == (Tier.SILVER, Tier.PLATINUM)
    history.step(51, *passes(ALICE, 2)).turn(5, 60)
    assert history.standings.provers()[0].tier is Tier.PLATINUM


def test_a_prover_that_comes_back_under_another_uid_keeps_what_it_had() -> None:
    history = History.begun(ALICE).step(1, (ALICE, "pass"))
    score = history.standings.provers()[0].score
    history.add(left(ALICE, 0, 2), joined(BOB, 0, 2))
    gone = history.standings.prover(ALICE)
    assert gone is not None
    assert (gone.uid, gone.last_uid) == (None, 0)
    assert [prover.hotkey for prover in history.standings.provers()] == [BOB, ALICE]
    history.add(joined(ALICE, 7, 3))
    back = history.standings.holder(7)  # type: ignore[arg-type]
    assert back is not None
    assert (back.hotkey, back.score, back.total_successes) == (ALICE, score, 1)


def test_an_unknown_prover_has_no_standing() -> None:
    standings = History.begun(ALICE).standings
    assert standings.prover(BOB) is None
    assert standings.holder(9) is None  # type: ignore[arg-type]


def test_standings_say_where_the_log_stands() -> None:
    history = History.begun(ALICE)
    standings = history.standings
    assert standings.interval == 0
    assert standings.interval_head == history.records[-1].hash
    assert standings.head == history.head
    assert standings.opened == history.events[0]
    history.add(attempt(ALICE, 5))
    assert (standings.block, standings.step_open) == (5, True)
    history.add(verdict(history.head.seq), step_closed(5), skipped(6, 8))
    assert (standings.block, standings.step_open, standings.blocks_skipped) == (8, False, 3)
    history.add(interval_closed(0, 9))
    assert standings.interval is None


def test_an_empty_log_stands_nowhere() -> None:
    standings = Standings()
    assert (standings.head.seq, standings.block, standings.opened) == (-1, -1, None)
    with pytest.raises(InvalidHistory, match="expected log_opened first"):
        _ = standings.profile


def test_the_weights_that_were_set_are_remembered_and_so_is_a_refusal() -> None:
    history = History.begun(ALICE).add(weights_set({0: 65_535}, 3), weights_not_set("rate limit", 9))
    standings = history.standings
    assert (dict(standings.last_weights), standings.weights_block) == ({0: 65_535}, 3)
    assert standings.weights_refusal == "rate limit"
    history.add(weights_set({0: 65_535}, 12))
    assert standings.weights_block == 12
    assert standings.weights_refusal is None


# -- weights -------------------------------------------------------------------------------------------


def test_weights_follow_scores_and_leave_out_the_gone_the_idle_and_those_on_probation() -> None:
    history = History.begun(ALICE, BOB, CAROL).step(1, (ALICE, "pass"), (ALICE, "pass"), (BOB, "pass"))
    history.step(2, (CAROL, "pass"), tokens=63)
    assert history.standings.weights() == {0: 65_535, 1: 32_768}
    history.add(left(ALICE, 0, 3))
    assert history.standings.weights() == {1: 65_535}


def test_when_all_are_on_probation_there_are_no_weights_and_it_says_why() -> None:
    weights = History.begun(ALICE, BOB).standings.weights()
    assert weights == NoWeights("all 2 provers are on probation: none has 64 verified tokens")


def test_when_nobody_holds_a_uid_there_are_no_weights() -> None:
    assert History.begun().standings.weights() == NoWeights("there is no prover")


# -- histories that cannot be --------------------------------------------------------------------------


def refused(history: History, *events: object) -> str:
    """Why the last of some events cannot follow; the ones before it can."""
    *good, bad = events
    history.add(*good)  # type: ignore[arg-type]
    before = history.standings.to_snapshot()
    with pytest.raises(InvalidHistory) as error:
        history.add(bad)  # type: ignore[arg-type]
    assert error.value.seq == history.next
    assert history.standings.to_snapshot() == before, "a refused record changes nothing"
    return str(error.value)


def test_a_log_begins_with_log_opened_and_has_one() -> None:
    assert "got step_closed, expected log_opened first" in refused(History(), step_closed(1))
    assert "a second log_opened" in refused(History.begun(), log_opened())


def test_a_record_out_of_place_is_refused() -> None:
    history = History.begun(ALICE)
    with pytest.raises(InvalidHistory, match="record 0: it follows"):
        history.standings.apply(history.records[0])
    other = History.begun(BOB).step(1, (BOB, "pass"))
    with pytest.raises(InvalidHistory, match="record 3: it follows"):
        history.standings.apply(other.records[3])


def test_a_uid_has_one_holder_and_a_hotkey_one_uid() -> None:
    assert "still holds" in refused(History.begun(ALICE), joined(BOB, 0))
    assert "while it still holds UID 0" in refused(History.begun(ALICE), joined(ALICE, 1))
    assert "which it does not hold" in refused(History.begun(ALICE), left(BOB, 0))
    assert "which it does not hold" in refused(History.begun(ALICE), left(ALICE, 0), left(ALICE, 0))


def test_intervals_open_and_close_in_order() -> None:
    assert "interval 1 opens while interval 0 is open" in refused(History.begun(), interval_opened(1))
    assert "opens after interval 0 was closed" in refused(
        History.begun(), interval_closed(0), interval_opened(0)
    )
    assert "closes, but interval 0 is open" in refused(History.begun(), interval_closed(1))
    assert "closes, but none is open" in refused(History.begun(), interval_closed(0), interval_closed(0))


def test_an_interval_closes_with_the_secret_that_was_committed_to() -> None:
    lie = interval_closed(0).model_copy(update={"secret": "00" * 32})
    assert "not the one that was committed to" in refused(History.begun(), lie)


def test_an_interval_does_not_close_over_open_attempts_or_steps() -> None:
    number = History.begun(ALICE).next
    assert f"attempt {number} has no verdict" in refused(
        History.begun(ALICE), attempt(ALICE, 1), interval_closed(0)
    )
    assert "the step of block 1 has not" in refused(
        History.begun(ALICE), attempt(ALICE, 1), verdict(number), interval_closed(0)
    )


def test_an_attempt_needs_an_interval_a_prover_with_a_uid_and_an_open_step() -> None:
    assert "between two intervals" in refused(History.begun(ALICE), interval_closed(0), attempt(ALICE, 1))
    assert "which holds no UID" in refused(History.begun(ALICE), attempt(BOB, 1))
    assert "which holds no UID" in refused(History.begun(ALICE), left(ALICE, 0), attempt(ALICE, 1))
    assert "the step of block 3 has closed" in refused(
        History.begun(ALICE), step_closed(3), attempt(ALICE, 3)
    )


def test_a_verdict_needs_its_attempt_once_and_a_pass_a_reply() -> None:
    number = History.begun(ALICE).next
    assert "which is not open" in refused(History.begun(ALICE), verdict(0))
    assert "which is not open" in refused(
        History.begun(ALICE), attempt(ALICE, 1), verdict(number), verdict(number)
    )
    assert "passed without a reply" in refused(
        History.begun(ALICE), attempt(ALICE, 1), verdict(number, replied=False)
    )


@pytest.mark.parametrize("left_behind", ["observed", "evidence_after"])
def test_native_work_leaves_no_evidence(left_behind: str) -> None:
    history = History.begun(ALICE)
    left_by_it: object = "eJw=" if left_behind == "observed" else {"e": 1}
    noted = verdict(history.next).model_copy(update={left_behind: left_by_it})
    assert "its dialect native leaves none" in refused(history, attempt(ALICE, 1, dialect="native"), noted)


def test_steps_close_in_order_and_only_with_every_verdict() -> None:
    number = History.begun(ALICE).next
    assert "closes after that of 2" in refused(History.begun(ALICE), step_closed(2), step_closed(2))
    assert f"attempt {number} has no verdict" in refused(
        History.begun(ALICE), attempt(ALICE, 1), step_closed(1)
    )


def test_skipped_blocks_run_forwards() -> None:
    assert "expected first <= last" in refused(History.begun(), skipped(5, 4))
