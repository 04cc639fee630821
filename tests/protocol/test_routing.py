"""Users' requests are shared out in proportion, and nobody gets all of them, or none."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.protocol import routing
from targon.protocol.primitives import Uid

CAPACITIES = st.dictionaries(
    st.integers(0, 65_535).map(Uid), st.integers(1, 100_000), min_size=1, max_size=40
)
TABLES = st.lists(st.tuples(st.integers(0, 65_535).map(Uid), st.integers(1, 1_000)), min_size=1, max_size=30)
DRAWS = st.integers(0, 2**64 - 1)


@given(CAPACITIES)
def test_everyone_has_a_share_within_bounds_of_the_median_in_uid_order(capacities: dict[Uid, int]) -> None:
    table = routing.shares(capacities)
    assert [uid for uid, _ in table] == sorted(capacities)
    median = sorted(capacities.values())[(len(capacities) - 1) // 2]
    for _, share in table:
        assert ceil(median / 8) <= share <= 4 * median


@given(CAPACITIES)
def test_who_takes_more_has_no_smaller_share(capacities: dict[Uid, int]) -> None:
    table = dict(routing.shares(capacities))
    ordered = sorted(capacities, key=lambda uid: capacities[uid])
    assert [table[uid] for uid in ordered] == sorted(table.values())


@given(st.dictionaries(st.integers(0, 99).map(Uid), st.integers(8, 12), min_size=1))
def test_capacities_that_are_alike_are_the_shares(capacities: dict[Uid, int]) -> None:
    assert dict(routing.shares(capacities)) == capacities


def test_nobody_has_no_shares() -> None:
    assert routing.shares({}) == ()


@pytest.mark.parametrize("capacity", [0, -3])
def test_a_capacity_below_one_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1 each"):
        routing.shares({Uid(1): 4, Uid(2): capacity})


@given(DRAWS, TABLES)
def test_a_draw_falls_where_it_lies_in_the_shares_laid_end_to_end(
    draw: int, table: list[tuple[Uid, int]]
) -> None:
    laid = [uid for uid, share in table for _ in range(share)]
    assert routing.pick(draw, table) == laid[draw * len(laid) // 2**64]


@given(TABLES)
def test_picks_are_in_proportion_to_shares(table: list[tuple[Uid, int]]) -> None:
    total = sum(share for _, share in table)
    evenly = [(place << 64) // total + 1 for place in range(total)]
    expected: Counter[Uid] = Counter()
    for uid, share in table:
        expected[uid] += share
    assert Counter(routing.pick(draw, table) for draw in evenly) == expected


def test_without_shares_nobody_is_picked() -> None:
    with pytest.raises(ValueError, match="got no shares"):
        routing.pick(0, [])
