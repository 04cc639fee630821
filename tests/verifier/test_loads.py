"""How many requests a prover is given at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from targon.protocol.primitives import Hotkey
from targon.verifier.loads import EXCUSES, EXCUSES_EARNED, LIMITED_REST_S, MAX_REST_S, Loads

PROVER = Hotkey("5" + "P" * 47)


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def taking(capacity: int) -> tuple[Loads, Hands]:
    hands = Hands()
    loads = Loads(hands)
    loads.report({PROVER: capacity})
    return loads, hands


def room(loads: Loads) -> int:
    """How many more it may have; they are given to it."""
    count = 0
    while loads.has_room(PROVER):
        loads.begin(PROVER)
        count += 1
    return count


def test_a_prover_is_given_what_it_says_that_it_takes_and_no_more() -> None:
    loads, _ = taking(8)
    assert room(loads) == 8
    assert not loads.overfilled(PROVER)
    loads.end(PROVER)
    assert room(loads) == 1


def test_nobody_is_given_anything_who_says_nothing() -> None:
    loads, _ = taking(8)
    assert not loads.has_room(Hotkey("5" + "Q" * 47))
    assert loads.window(Hotkey("5" + "Q" * 47)) == 0


def test_challenges_take_room_too() -> None:
    loads, _ = taking(2)
    with loads.sending(PROVER):
        assert room(loads) == 1
    assert loads.has_room(PROVER)


def test_a_window_shrinks_by_half_and_grows_back_by_one_with_each_window_of_answers() -> None:
    loads, hands = taking(16)
    loads.slow(PROVER)
    assert loads.window(PROVER) == 8
    for _ in range(9):
        loads.answered(PROVER)
    assert loads.window(PROVER) == 9
    hands.now_s += 1.0
    loads.slow(PROVER)
    assert loads.window(PROVER) == 4


def test_what_fails_together_counts_once() -> None:
    loads, _ = taking(16)
    for _ in range(16):
        loads.failed(PROVER)
    assert loads.window(PROVER) == 8
    assert loads.has_room(PROVER), "one failure is no reason to rest"


def test_who_fails_again_and_again_rests_longer_each_time_and_never_for_good() -> None:
    loads, hands = taking(16)
    rests: list[float] = []
    for _ in range(12):
        loads.failed(PROVER)
        began_s = hands.now_s
        while not loads.has_room(PROVER):
            hands.now_s += 0.5
        rests.append(hands.now_s - began_s)
        hands.now_s += 1.0
    assert rests[0] == 0.0
    assert rests == sorted(rests)
    assert rests[-1] == MAX_REST_S
    assert loads.window(PROVER) == 1
    loads.answered(PROVER)
    loads.failed(PROVER)
    assert loads.has_room(PROVER), "an answer ends the row"


def test_beyond_its_word_is_beyond_whatever_the_window_was() -> None:
    loads, _ = taking(4)
    assert room(loads) == 4
    loads.report({PROVER: 2})
    assert loads.overfilled(PROVER)
    assert loads.window(PROVER) == 2


def test_a_prover_that_takes_more_than_before_may_have_more() -> None:
    loads, _ = taking(4)
    loads.report({PROVER: 9})
    assert loads.window(PROVER) == 9
    loads.slow(PROVER)
    loads.report({PROVER: 20})
    assert loads.window(PROVER) == 4, "one that was slow has to show first that it can"


def test_who_serves_no_more_is_forgotten_once_nothing_is_under_way() -> None:
    loads, _ = taking(4)
    loads.begin(PROVER)
    loads.report({})
    loads.end(PROVER)
    loads.report({})
    assert loads.window(PROVER) == 0


def test_who_takes_nothing_any_more_is_given_nothing_though_something_is_under_way() -> None:
    loads, _ = taking(4)
    loads.begin(PROVER)
    loads.report({})
    assert not loads.has_room(PROVER)
    assert loads.window(PROVER) == 0
    assert loads.overfilled(PROVER)
    loads.report({PROVER: 4})
    assert room(loads) == 3


def test_a_refusal_for_a_limit_of_its_own_is_excused_and_narrows_the_window_and_rests() -> None:
    loads, hands = taking(16)
    loads.begin(PROVER)
    assert not loads.excused(PROVER, limited=False), "its own word is what it is held to"
    assert loads.excused(PROVER, limited=True)
    assert loads.window(PROVER) == 8
    assert not loads.has_room(PROVER)
    hands.now_s += LIMITED_REST_S
    assert loads.has_room(PROVER)


def test_nobody_chooses_its_work_by_refusing_for_limits_of_its_own() -> None:
    loads, hands = taking(16)
    answers, excused = 2_000, 0
    for _ in range(answers):
        loads.answered(PROVER)
        excused += loads.excused(PROVER, limited=True)
        hands.now_s += 10.0
    assert excused <= EXCUSES + EXCUSES_EARNED * answers
    assert not loads.excused(PROVER, limited=True)
    loads.report({})
    loads.report({PROVER: 16})
    assert not loads.excused(PROVER, limited=True), "leaving and coming back brings none"


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.sampled_from(["answered", "slow", "failed"]), st.floats(0.0, 3.0)), max_size=60),
)
def test_a_window_lies_between_one_and_what_the_prover_says(capacity: int, story) -> None:
    loads, hands = taking(capacity)
    for what, pause_s in story:
        getattr(loads, what)(PROVER)
        hands.now_s += pause_s
        assert 1 <= loads.window(PROVER) <= capacity
