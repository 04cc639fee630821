"""Proposals of weights and their fates, anchors, and what may be published when."""

from __future__ import annotations

import pytest

from targon.ledger import Event, InvalidHistory
from tests.ledger.history import (
    ALICE,
    History,
    head_anchored,
    interval_closed,
    interval_opened,
    weights_not_set,
    weights_proposed,
    weights_set,
)

WEIGHTS = {0: 65_535}


def proposed(history: History, block: int = 5, weights: dict[int, int] = WEIGHTS) -> int:
    number = history.next
    history.add(weights_proposed(weights, block))
    return number


def test_a_proposal_is_open_until_its_fate_is_known() -> None:
    history = History.begun(ALICE)
    number = proposed(history)
    assert list(history.standings.proposals) == [number]
    assert history.standings.proposals[number].weights == WEIGHTS
    history.add(weights_set(WEIGHTS, 6, proposal=number))
    assert not history.standings.proposals
    assert (dict(history.standings.last_weights), history.standings.weights_block) == (WEIGHTS, 6)


def test_a_refused_proposal_leaves_the_weights_as_they_were() -> None:
    history = History.begun(ALICE)
    number = proposed(history)
    history.add(weights_not_set("no permit", 6, proposal=number))
    assert not history.standings.proposals
    assert dict(history.standings.last_weights) == {}
    assert history.standings.weights_refusal == "no permit"


@pytest.mark.parametrize("fate", [weights_set(WEIGHTS, 6, proposal=7), weights_not_set("no", 6, proposal=7)])
def test_a_fate_needs_its_proposal_once(fate: Event) -> None:
    history = History.begun(ALICE)
    with pytest.raises(InvalidHistory, match="proposal 7"):
        history.add(fate)
    number = proposed(history)
    last = fate.model_copy(update={"proposal": number})
    history.add(last)
    with pytest.raises(InvalidHistory, match="not open"):
        history.add(last)


@pytest.mark.parametrize("other", [{"weights": ((0, 1),)}, {"version_key": 9}])
def test_what_is_set_is_what_was_proposed(other: dict[str, object]) -> None:
    history = History.begun(ALICE)
    number = proposed(history)
    with pytest.raises(InvalidHistory, match="other weights"):
        history.add(weights_set(WEIGHTS, 6, proposal=number).model_copy(update=other))


def next_interval(history: History, interval: int, block: int) -> int:
    """Close an interval and open the next; returns the place of the record that opens it."""
    history.add(interval_closed(interval, block), interval_opened(interval + 1, block))
    return history.head.seq


def test_records_are_released_when_the_weights_that_follow_from_them_stand() -> None:
    history = History.begun(ALICE)
    assert history.standings.released == 0
    opened = next_interval(history, 0, 10)
    number = proposed(history, 11)
    assert history.standings.released == 0
    history.add(weights_set(WEIGHTS, 12, proposal=number))
    assert history.standings.released == opened


def test_a_later_proposal_keeps_what_it_followed_from_secret() -> None:
    history = History.begun(ALICE)
    first_opened = next_interval(history, 0, 10)
    first = proposed(history, 11)
    second_opened = next_interval(history, 1, 20)
    second = proposed(history, 21)
    history.add(weights_not_set("there was nothing more to say", 21))
    assert history.standings.released == 0
    history.add(weights_set(WEIGHTS, 22, proposal=first))
    assert history.standings.released == first_opened
    history.add(weights_not_set("expired", 30, proposal=second))
    assert history.standings.released == second_opened


def test_an_older_proposal_that_is_still_secret_holds_back_what_a_later_one_would_release() -> None:
    history = History.begun(ALICE)
    next_interval(history, 0, 10)
    first = proposed(history, 11)
    second_opened = next_interval(history, 1, 20)
    second = proposed(history, 21)
    history.add(weights_not_set("refused", 22, proposal=second))
    assert history.standings.released == 0, "the first one's weights stand before it, and are not revealed"
    history.add(weights_set(WEIGHTS, 23, proposal=first))
    assert history.standings.released == second_opened


def test_where_there_is_nothing_to_propose_there_is_nothing_to_keep_secret() -> None:
    history = History.begun(ALICE)
    opened = next_interval(history, 0, 10)
    history.add(weights_not_set("every score is 0", 11))
    assert history.standings.released == opened


def test_the_open_intervals_head_is_anchored_once() -> None:
    history = History.begun(ALICE)
    head = history.standings.interval_head
    assert history.standings.anchored_block == -1
    history.add(head_anchored(0, head, 3))
    after = history.standings
    assert after.anchored == 0
    assert after.anchored_block == 3
    with pytest.raises(InvalidHistory, match="second time"):
        history.add(head_anchored(0, head, 4))


def test_another_head_or_interval_is_no_anchor() -> None:
    history = History.begun(ALICE)
    for interval, head in ((0, "ab" * 32), (1, history.standings.interval_head)):
        with pytest.raises(InvalidHistory, match="expected the open interval's"):
            history.add(head_anchored(interval, head, 3))
