"""How provers stand, in numbers, and when they are said."""

from __future__ import annotations

from targon.ledger import Standings
from targon.protocol.primitives import Block
from targon.verifier import StatisticsSchedule, statistics
from tests.ledger.history import (
    ALICE,
    BOB,
    CAROL,
    History,
    attempt,
    fails,
    folded,
    left,
    passes,
    step_closed,
    verdict,
    weights_set,
)


def test_before_anything_happened_there_is_little_to_say():
    numbers = statistics(Standings())
    assert (numbers["provers"], numbers["attempts"], numbers["records"]) == (0, 0, 0)
    assert numbers.keys().isdisjoint({"success_rate", "mean_score", "blocks_since_weights"})


def test_the_numbers_are_those_of_the_log():
    history = History.begun(ALICE, BOB).step(1, *passes(ALICE, 3), *fails(BOB, 1))
    history.add(weights_set({0: 65535}, 2)).step(5, *passes(ALICE, 1))
    standings = folded(history.records)
    numbers = statistics(standings)
    assert numbers["block"] == 5
    assert numbers["records"] == len(history.records)
    assert numbers["provers"] == 2
    assert (numbers["attempts"], numbers["passed"], numbers["success_rate"]) == (5, 4, 0.8)
    assert numbers["verified_tokens"] == sum(prover.verified_tokens for prover in standings.provers())
    scores = [prover.score for prover in standings.provers()]
    assert numbers["best_score"] == round(max(scores), 6) > numbers["mean_score"] > 0
    assert numbers["blocks_since_weights"] == 3


def test_attempts_that_are_open_or_undecided_are_told_apart():
    history = History.begun(ALICE)
    first = history.next
    history.add(attempt(ALICE, 1), verdict(first, "inconclusive"), step_closed(1), attempt(ALICE, 2))
    numbers = statistics(folded(history.records))
    assert (numbers["attempts"], numbers["inconclusive"], numbers["open_attempts"]) == (0, 1, 1)


def test_those_that_left_no_longer_count():
    history = History.begun(ALICE, BOB, CAROL).step(1, *passes(CAROL, 2)).add(left(CAROL, 2, 2))
    numbers = statistics(folded(history.records))
    assert (numbers["provers"], numbers["attempts"]) == (2, 0)


def test_statistics_are_due_at_once_and_then_every_interval():
    schedule = StatisticsSchedule(360)
    seen = [block for block in range(100, 1000, 7) if schedule.due(Block(block))]
    assert seen == [100, 464, 828]


def test_skipped_blocks_do_not_skip_the_statistics():
    schedule = StatisticsSchedule(10)
    assert [schedule.due(Block(block)) for block in (0, 9, 25, 30, 35)] == [True, False, True, False, True]
