"""When two replays of one completion agree, and whom to go by among several."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from targon.engines import Replayed, ReplayTask
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId
from targon.verification.agreement import agreeing, apart, distance, midmost
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio

TEMPERATURE = 0.8


async def a_replay(count: int = 40) -> Replayed:
    """Of tokens that have nothing to do with the question."""
    ids = tuple(TokenId(1 + place % 26) for place in range(count))
    sampling = Sampling(seed="0000000000000007", temperature=TEMPERATURE, max_tokens=count)
    task = ReplayTask((ChatMessage(role="user", content="Why?"),), ids, sampling, 7)
    return (await TinyEngine().replay([task]))[0]


def changed(one: Replayed, **columns: Any) -> Replayed:
    return dataclasses.replace(one, replay=dataclasses.replace(one.replay, **columns))


async def test_a_replay_agrees_with_itself_and_with_one_that_rounding_moved() -> None:
    one = await a_replay()
    rng = np.random.default_rng(1)
    moved = changed(
        one,
        gaps=np.clip(one.replay.gaps + rng.normal(0, 0.05, 40), 0, 10),
        margins=np.clip(one.replay.margins + rng.normal(0, 0.05, 40), 0, 10),
    )
    assert apart(one, one, TEMPERATURE) is None
    assert apart(one, moved, TEMPERATURE) is None


async def test_another_token_counts_where_either_says_that_it_was_clear() -> None:
    one = await a_replay()
    place = int(np.argmax(one.replay.gaps))
    best = one.replay.best_ids.copy()
    best[place] = best[place] % 26 + 1
    low = one.replay.gaps.copy()
    low[place] = 0.1  # a liar says that it was close
    other = changed(one, best_ids=best, gaps=low)
    assert apart(one, other, TEMPERATURE) is not None
    assert apart(other, one, TEMPERATURE) is not None


@pytest.mark.parametrize(("turned", "agree"), [(4, True), (5, False)])
async def test_where_both_say_that_it_was_close_few_tokens_may_be_others(turned: int, agree: bool) -> None:
    one = await a_replay()
    close = changed(one, gaps=np.full(40, 0.1))
    best = np.where(np.arange(40) < turned, one.replay.best_ids % 26 + 1, one.replay.best_ids)
    assert (apart(close, changed(close, best_ids=best), TEMPERATURE) is None) == agree


@pytest.mark.parametrize("column", ["gaps", "margins"])
async def test_what_rounding_moves_by_a_hair_it_moves_further_at_few_positions(column: str) -> None:
    one = changed(await a_replay(), gaps=np.full(40, 3.0), margins=np.full(40, 3.0))
    for moved, agree in ((4, True), (5, False)):
        values = np.where(np.arange(40) < moved, 3.0 - 0.5 / TEMPERATURE, 3.0)
        assert (apart(one, changed(one, **{column: values}), TEMPERATURE) is None) == agree


@pytest.mark.parametrize("mark", ["unsure", "on_cut"])
async def test_where_a_draw_hangs_on_a_cut_nothing_is_made_of_it(mark: str) -> None:
    one = changed(await a_replay(), **{mark: np.ones(40, dtype=np.bool_)})
    other = changed(one, best_ids=one.replay.best_ids % 26 + 1, margins=np.zeros(40))
    assert apart(one, other, TEMPERATURE) is None


@pytest.mark.parametrize(("gap", "agree"), [(0.95, True), (1.05, False)])
async def test_another_token_is_rounding_only_where_neither_says_that_it_was_clear(
    gap: float, agree: bool
) -> None:
    one = changed(await a_replay(), gaps=np.full(40, 0.9 / TEMPERATURE))
    there = np.arange(40) == 7
    other = changed(
        one,
        gaps=np.where(there, gap / TEMPERATURE, one.replay.gaps),
        best_ids=np.where(there, one.replay.best_ids % 26 + 1, one.replay.best_ids),
    )
    assert (apart(one, other, TEMPERATURE) is None) == agree
    assert (apart(other, one, TEMPERATURE) is None) == agree


@pytest.mark.parametrize("column", ["gaps", "margins"])
async def test_a_gap_or_margin_that_is_too_far_off_counts_at_one_position(column: str) -> None:
    one = changed(await a_replay(), gaps=np.full(40, 3.0), margins=np.full(40, 3.0))
    for off, agree in ((0.95, True), (1.05, False)):
        values = np.where(np.arange(40) == 7, 3.0 - off / TEMPERATURE, 3.0)
        said = apart(one, changed(one, **{column: values}), TEMPERATURE)
        assert (said is None) == agree
    assert said is not None
    assert "at position 7" in said


@pytest.mark.parametrize(("moved", "agree"), [(4, True), (5, False)])
async def test_log_probabilities_differ_by_more_than_rounding_at_few_positions(
    moved: int, agree: bool
) -> None:
    one = await a_replay()
    said = np.where(np.arange(40) < moved, one.claimed_logprobs - 0.3, one.claimed_logprobs)
    other = dataclasses.replace(one, claimed_logprobs=said.astype(np.float32))
    assert (apart(one, other, TEMPERATURE) is None) == agree


@pytest.mark.parametrize("mass", [0.35, np.nan])
@pytest.mark.parametrize(("moved", "agree"), [(4, True), (5, False)])
async def test_the_mass_of_unlikely_tokens_is_another_or_unknown_at_few_positions(
    mass: float, moved: int, agree: bool
) -> None:
    one = changed(await a_replay(), tail_mass=np.full(40, 0.2))
    other = changed(one, tail_mass=np.where(np.arange(40) < moved, mass, 0.2))
    assert (apart(one, other, TEMPERATURE) is None) == agree
    assert (apart(other, one, TEMPERATURE) is None) == agree


@pytest.mark.parametrize("column", ["among", "in_tail", "unsure", "on_cut", "claimed_rivals", "rivals"])
async def test_what_turns_on_rounding_may_differ_here_and_there_but_not_all_over(column: str) -> None:
    one = await a_replay()
    now = getattr(one.replay, column)
    there = np.zeros(40, dtype=np.bool_)
    there[:4] = True
    other = ~now if now.dtype == np.bool_ else now ^ 15
    assert apart(one, changed(one, **{column: np.where(there, other, now)}), TEMPERATURE) is None
    assert apart(one, changed(one, **{column: other}), TEMPERATURE) is not None


async def test_what_takes_a_position_out_of_a_verdict_counts_together_whatever_it_is() -> None:
    one = await a_replay()
    places = np.arange(40)
    few = changed(one, unsure=places < 2, on_cut=(places >= 2) & (places < 4))
    assert apart(one, few, TEMPERATURE) is None
    assert apart(one, changed(few, on_cut=(places >= 2) & (places < 6)), TEMPERATURE) is not None


async def test_another_prompt_is_another_task() -> None:
    one = await a_replay()
    assert apart(one, dataclasses.replace(one, prompt_tokens=2), TEMPERATURE) is not None


def equal(one: str, other: str) -> str | None:
    return None if one == other else "they differ"


@pytest.mark.parametrize(
    ("said", "needed", "asked", "group"),
    [
        ("a", 1, 1, (0,)),
        ("aab", 2, 3, (0, 1)),
        ("baa", 2, 3, (1, 2)),
        ("ab", 2, 3, None),
        ("a", 2, 3, None),
        ("", 1, 3, None),
        ("aabb", 2, 4, None),
        ("aab", 2, 4, (0, 1)),
        ("ab", 1, 2, None),
        ("aa", 1, 2, (0, 1)),
        ("aabbb", 3, 5, (2, 3, 4)),
    ],
)
def test_whom_to_go_by(said: str, needed: int, asked: int, group: tuple[int, ...] | None) -> None:
    assert agreeing(said, needed, asked, equal) == group


def test_one_that_agrees_with_some_only_cannot_keep_a_majority_from_being_heard() -> None:
    def close(one: int, other: int) -> str | None:
        return None if abs(one - other) <= 1 else "far"

    assert agreeing([0, 1, 2], 2, 3, close) == (0, 1)


def test_the_one_in_the_midst_is_gone_by() -> None:
    def apart_by(one: float, other: float) -> float:
        return abs(one - other)

    assert midmost([0.9, 0.01, 0.0], apart_by) == 1
    assert midmost([0.9, 0.9, 0.0, 0.01, 0.0], apart_by) in (2, 3, 4)
    assert midmost([0.5, 0.5], apart_by) == 0
    assert midmost([0.5], apart_by) == 0


async def test_a_distance_counts_whatever_a_judge_looks_at() -> None:
    one = await a_replay()
    assert distance(one, one, TEMPERATURE) == 0.0
    for name in one.replay.__slots__:
        column = getattr(one.replay, name)
        if name == "tail_mass":
            continue  # of evidence alone that in_tail is part of
        other = ~column if column.dtype == np.bool_ else column + 1
        assert distance(one, changed(one, **{name: other}), TEMPERATURE) > 0.1, name
    likelier = dataclasses.replace(one, claimed_logprobs=one.claimed_logprobs + np.float32(0.2))
    assert distance(one, likelier, TEMPERATURE) > 0.1


def test_sixteen_that_disagree_are_gone_through_in_no_time() -> None:
    begun = time.process_time()
    assert agreeing("abcdefgh" * 2, 9, 16, equal) is None
    assert agreeing("ab" * 8, 8, 16, equal) is None
    assert agreeing("a" * 9 + "b" * 7, 9, 16, equal) == tuple(range(9))
    assert time.process_time() - begun < 0.5
