"""What users' inferences do to the standings, and what of them cannot be."""

from __future__ import annotations

import pytest

from targon.ledger import InvalidHistory, ProverStanding, Route, Snapshot, Standings, parse_event
from targon.protocol import rewards
from targon.protocol.primitives import Block, Hotkey
from tests.ledger.history import (
    ALICE,
    BOB,
    CAROL,
    History,
    answered,
    attempt,
    history_with_routes,
    inference,
    interval_closed,
    left,
    receipt,
    routes_set,
    step_closed,
    verdict,
    weights_not_set,
    withdrawn,
)
from tests.ledger.test_conviction import convicted


def standing(history: History, prover: Hotkey = ALICE) -> ProverStanding:
    found = history.standings.prover(prover)
    assert found is not None
    return found


def asked(*provers: Hotkey) -> tuple[History, int]:
    """A history in which Alice was sent a user's inference; and its number."""
    history = history_with_routes(ALICE, *provers)
    number = history.next
    return history.add(inference(ALICE, 1)), number


def refused(history: History, *events, match: str) -> None:
    before = history.standings.to_snapshot()
    with pytest.raises(InvalidHistory, match=match):
        history.add(*events)
    assert history.standings.to_snapshot() == before, "nothing has changed then"


# -- routes ----------------------------------------------------------------------------------------


def test_routes_replace_those_before_them() -> None:
    history = history_with_routes(ALICE, BOB)
    assert dict(history.standings.routes("smollm2")) == {0: 1, 1: 1}
    history.add(routes_set((1, 7)))
    assert dict(history.standings.routes("smollm2")) == {1: 7}
    assert dict(history.standings.routes("another")) == {}


@pytest.mark.parametrize("shares", [((1, 1), (0, 1)), ((0, 1), (0, 2))])
def test_routes_out_of_order_are_refused(shares: tuple[tuple[int, int], ...]) -> None:
    refused(history_with_routes(ALICE, BOB), routes_set(*shares), match="in the order of UIDs, each once")


def test_a_users_inference_needs_a_share_and_the_verifiers_own_does_not() -> None:
    history = History.begun(ALICE)
    refused(history, inference(ALICE, 1), match="UID 0, which has no share in the routes of smollm2")
    history.add(inference(ALICE, 1, route=None))
    assert standing(history).sent == 1


def test_an_inference_needs_an_open_interval_and_a_prover_with_a_uid() -> None:
    history = history_with_routes(ALICE, BOB).add(left(BOB, 1, 1))
    refused(history, inference(BOB, 1), match="holds no UID")
    history.add(interval_closed(0, 2))
    refused(history, inference(ALICE, 2), match="between two intervals")


# -- answers ---------------------------------------------------------------------------------------


def test_an_answer_without_an_audit_is_a_success_without_a_verified_token() -> None:
    history, number = asked()
    history.add(answered(number, ALICE, speed=20.0))
    alice = standing(history)
    assert (alice.attempts, alice.successes, alice.replies, alice.total_successes) == (1, 1, 1, 1)
    assert (alice.inferences, alice.audits, alice.verified_tokens) == (1, 0, 0)
    assert alice.last_verdict is None
    assert not history.standings.open_attempts
    history.add(step_closed(1))
    assert standing(history).score == pytest.approx(0.05 * rewards.served(0.444, 20.0, None))


def test_an_answer_under_audit_counts_once_its_verdict_is_there() -> None:
    history, number = asked()
    history.add(answered(number, ALICE, audited=True), step_closed(1))
    alice = standing(history)
    assert (alice.attempts, alice.inferences, alice.audits, alice.score) == (0, 1, 1, 0.0)
    assert list(history.standings.under_audit) == [number]
    assert history.standings.attempt(number) == inference(ALICE, 1)
    history.add(verdict(number, tokens=64))
    alice = standing(history)
    assert (alice.attempts, alice.successes, alice.verified_tokens) == (1, 1, 64)
    assert not history.standings.under_audit
    assert history.standings.attempt(number) is None


def test_failing_an_audit_costs_five_times_a_challenge() -> None:
    history, number = asked(BOB)
    challenge = history.next
    history.add(attempt(BOB, 1), answered(number, ALICE, audited=True), verdict(number, "fail"))
    earned = history.standings.worth(inference(ALICE, 1), verdict(number, "fail"))
    lost = history.standings.worth(attempt(BOB, 1), verdict(challenge, "fail"))
    assert earned is not None
    assert lost is not None
    assert earned == pytest.approx(5 * lost)
    assert (standing(history).attempts, standing(history).successes) == (1, 0)


def test_an_undelivered_inference_is_judged_without_an_answer() -> None:
    history, number = asked()
    history.add(verdict(number, "fail", replied=False))
    alice = standing(history)
    assert (alice.attempts, alice.replies, alice.inferences) == (1, 0, 0)


def test_an_inconclusive_audit_counts_for_nothing() -> None:
    history, number = asked()
    history.add(answered(number, ALICE, audited=True), verdict(number, "inconclusive"))
    assert (standing(history).attempts, standing(history).inconclusive) == (0, 1)


def test_work_beyond_what_is_calibrated_moves_two_counters_and_nothing_else() -> None:
    history = history_with_routes(ALICE)
    for counted, dialect in ((False, "targon/1"), (True, "native")):
        number = history.next
        history.add(inference(ALICE, 1, counted=counted, dialect=dialect))  # type: ignore[arg-type]
        history.add(answered(number, ALICE, speed=9.0))
    alice = standing(history)
    assert (alice.native, alice.native_replies, alice.inferences) == (2, 2, 2)
    assert (alice.attempts, alice.total_successes) == (0, 0)
    for counted, dialect in ((False, "targon/1"), (True, "native")):
        asked_for = inference(ALICE, 1, counted=counted, dialect=dialect)  # type: ignore[arg-type]
        assert history.standings.worth(asked_for, verdict(number)) is None
        assert history.standings.earned_by(asked_for, answered(number, ALICE)) is None
    history.add(step_closed(1), interval_closed(0, 2))
    assert standing(history).score == 0.0
    assert not history.standings.medians


def test_uncounted_work_may_leave_no_evidence() -> None:
    history = history_with_routes(ALICE)
    number = history.next
    history.add(inference(ALICE, 1, counted=False), answered(number, ALICE, audited=True))
    proof = verdict(number).model_copy(update={"observed": "x"})
    refused(history, proof, match="no calibration covers it")


def test_an_answer_is_refused_that_is_a_second_one_or_names_another() -> None:
    history, number = asked(BOB)
    refused(history, answered(number + 1, ALICE), match="expected an open inference")
    refused(history, answered(number, BOB), match="whose receipt names another")
    other = answered(number, ALICE).model_copy(update={"receipt": receipt(number, ALICE, "aa" * 32)})
    refused(history, other, match="whose receipt names another")
    history.add(answered(number, ALICE))
    refused(history, answered(number, ALICE), match="expected an open inference")
    refused(history, verdict(number), match="which is not open")


def test_a_challenge_is_neither_answered_nor_withdrawn() -> None:
    history = history_with_routes(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1))
    refused(history, answered(number, ALICE), match="expected an open inference")
    refused(history, withdrawn(number), match="expected an open inference")


def test_a_withdrawal_is_counted_and_moves_nothing() -> None:
    history, number = asked()
    before = standing(history)
    history.add(withdrawn(number, "outrun"))
    after = standing(history)
    assert (after.withdrawn, after.sent) == (1, 1)
    assert (after.attempts, after.inconclusive) == (before.attempts, before.inconclusive) == (0, 0)
    refused(history, withdrawn(number), match="expected an open inference")


def test_an_answer_under_audit_cannot_be_withdrawn() -> None:
    history, number = asked()
    history.add(answered(number, ALICE, audited=True))
    refused(history, withdrawn(number), match="expected an open inference")


# -- beside the steps, and over an interval's end ------------------------------------------------------


def test_a_step_and_an_interval_close_over_open_inferences() -> None:
    history, number = asked()
    history.add(step_closed(1)).turn(0, 2)
    history.add(answered(number, ALICE))
    assert standing(history).attempts == 1, "it counts in the interval in which it ends"
    assert standing(history).inferences == 1


def test_an_inference_may_name_a_block_whose_step_has_closed() -> None:
    history = history_with_routes(ALICE).add(step_closed(5), inference(ALICE, 3))
    assert len(history.standings.open_attempts) == 1


def test_what_was_earned_since_the_last_step_counts_at_the_intervals_end() -> None:
    history, number = asked()
    history.add(answered(number, ALICE))
    history.turn(0, 2)
    assert standing(history).score > 0


def test_inferences_and_challenges_of_one_block_make_one_step_of_the_score() -> None:
    history, number = asked()
    challenge = history.next
    history.add(attempt(ALICE, 1), answered(number, ALICE), verdict(challenge), step_closed(1))
    x = rewards.served(0.444, None, None)
    assert standing(history).score == pytest.approx(0.05 * 2 * x)


def test_a_conviction_forfeits_what_inferences_earned_since_the_last_step() -> None:

    history, number = asked()
    judged = history.next
    history.add(inference(ALICE, 1), answered(number, ALICE))
    history.add(answered(judged, ALICE, audited=True), verdict(judged, "fail"))
    history.add(convicted(ALICE, judged, block=1), step_closed(1))
    assert standing(history).score == 0.0


def test_counters_of_inferences_begin_anew_with_the_interval() -> None:
    history, number = asked()
    history.add(answered(number, ALICE, audited=True)).turn(0, 2)
    alice = standing(history)
    assert (alice.sent, alice.inferences, alice.audits, alice.withdrawn) == (0, 0, 0, 0)
    assert list(history.standings.under_audit) == [number]


# -- what may be published ---------------------------------------------------------------------------


def test_nothing_from_an_open_attempt_on_is_released() -> None:
    history, number = asked()
    history.add(step_closed(1)).turn(0, 2)
    history.add(weights_not_set("nobody earned anything", 2))
    assert history.standings.released == number, "its interval's secret would tell whether it is audited"
    history.add(withdrawn(number))
    history.add(weights_not_set("nobody earned anything", 3))
    assert history.standings.released > number


def test_an_answer_under_audit_keeps_nothing_from_being_released() -> None:
    history, number = asked()
    history.add(answered(number, ALICE, audited=True), step_closed(1)).turn(0, 2)
    history.add(weights_not_set("nobody earned anything", 2))
    assert history.standings.released > number


# -- snapshots and bytes -----------------------------------------------------------------------------


def test_a_snapshot_holds_what_is_open_under_audit_and_earned() -> None:
    history = history_with_routes(ALICE, BOB, CAROL)
    first = history.next
    history.add(*(inference(ALICE, 1) for _ in range(4)))
    history.add(answered(first, ALICE, speed=3.0), answered(first + 1, ALICE, audited=True))
    history.add(withdrawn(first + 2))
    taken = history.standings.to_snapshot()
    resumed = Standings.from_snapshot(Snapshot(history.head, taken))
    assert resumed.to_snapshot() == taken
    assert list(resumed.open_attempts) == [first + 3]
    assert list(resumed.under_audit) == [first + 1]
    assert dict(resumed.routes("smollm2")) == {0: 1, 1: 1, 2: 1}
    assert resumed.prover(ALICE) == standing(history)


@pytest.mark.parametrize(
    "event",
    [
        routes_set((0, 1), (3, 1_000_000)),
        inference(ALICE, 1, route=Route(turn=3, instead_of=7), counted=False),
        answered(4, ALICE, Block(2), audited=True, speed=1.5),
        withdrawn(4, "busy", 2),
    ],
)
def test_every_event_of_an_inference_survives_its_bytes(event) -> None:
    assert parse_event(event.to_bytes()) == event
