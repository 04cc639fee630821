"""How provers stand, in numbers; when they are said; and when a verifier gets nowhere."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from targon.ledger import Standings
from targon.protocol.primitives import Block
from targon.verifier import Progress, StatisticsCollector, StatisticsSchedule, statistics
from targon.verifier.progress import STALLED_S
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


def test_the_same_numbers_are_metrics():
    standings = folded(History.begun(ALICE).step(1, *passes(ALICE, 2)).records)
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(lambda: standings))
    text = generate_latest(registry).decode()
    for name, value in statistics(standings).items():
        assert f"targon_verifier_{name} {float(value)}" in text


def test_a_verifier_whose_log_stands_still_is_ailing_until_it_moves_again():
    history = History.begun(ALICE).step(1, *passes(ALICE, 1))
    now_s = 0.0
    standings = folded(history.records)
    progress = Progress(lambda: standings, lambda: now_s)
    now_s = STALLED_S
    assert progress.ailing() is None
    now_s += 1.0
    assert progress.ailing() == "no block was handled for 601 s; the last was 1"
    standings = folded(history.step(2, *passes(ALICE, 1)).records)
    assert progress.ailing() is None
