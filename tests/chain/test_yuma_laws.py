"""The laws of Yuma consensus, for any subnet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targon.chain import yuma

U16 = 65_535


@st.composite
def worlds(draw: st.DrawFn) -> yuma.Subnet:
    """Any subnet: stakes that differ, weights from nothing to much, some of it outdated or inactive."""
    n = draw(st.integers(1, 9))
    stake = draw(
        st.lists(st.one_of(st.just(0), st.integers(1, 10**6)), min_size=n, max_size=n).map(
            lambda values: [value * 16 + place if value else 0 for place, value in enumerate(values)]
        )
    )
    u16 = st.one_of(st.just(0), st.integers(0, U16))
    matrix = st.lists(st.lists(u16, min_size=n, max_size=n), min_size=n, max_size=n)
    blocks = st.lists(st.integers(0, 60), min_size=n, max_size=n)
    permits = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return yuma.Subnet(
        stake=np.array(stake, dtype=np.float64),
        permits=np.array(permits) & (np.array(stake) > 0),
        last_update=np.array(draw(blocks)),
        registered_at=np.array(draw(blocks)) // 2,
        weights=np.array(draw(matrix), dtype=np.float64),
        bonds=np.array(draw(matrix), dtype=np.float64),
    )


def epoch_of(world: yuma.Subnet, max_validators: int = 4) -> yuma.Epoch:
    return yuma.epoch(world, block=60, last_epoch_block=20, max_validators=max_validators, activity_cutoff=40)


def voted(stake: Sequence[int], provers: Mapping[int, int], honest: range, crony: int) -> yuma.Subnet:
    """The honest vote for provers, everybody else with stake for the crony."""
    n = len(stake)
    weights = np.zeros((n, n))
    for uid in range(n):
        for target, weight in (provers if uid in honest else {crony: U16}).items():
            weights[uid, target] = weight
    return yuma.Subnet(
        stake=np.array(stake, dtype=np.float64),
        permits=np.array(stake) > 0,
        last_update=np.full(n, 50),
        registered_at=np.zeros(n, dtype=np.int64),
        weights=weights,
        bonds=np.zeros((n, n)),
    )


def permuted(world: yuma.Subnet, order: list[int]) -> yuma.Subnet:
    return yuma.Subnet(
        stake=world.stake[order],
        permits=world.permits[order],
        last_update=world.last_update[order],
        registered_at=world.registered_at[order],
        weights=world.weights[np.ix_(order, order)],
        bonds=world.bonds[np.ix_(order, order)],
    )


@given(worlds())
def test_shares_sum_to_one_or_to_nothing(world: yuma.Subnet) -> None:
    result = epoch_of(world)
    for shares in (result.incentive, result.dividends, result.active_stake):
        assert (shares >= 0).all()
        assert shares.sum() == pytest.approx(1) or not shares.any()
    assert result.emission.sum() == pytest.approx(1 if world.stake.any() else 0)
    assert result.dividends.any() == result.incentive.any()


@given(worlds())
def test_every_value_is_within_its_range(world: yuma.Subnet) -> None:
    result = epoch_of(world)
    for values in (result.weights, result.consensus, result.validator_trust, result.ranks, result.trust):
        assert ((values >= 0) & (values <= 1 + 1e-9)).all()
    assert ((result.bonds >= 0) & (result.bonds <= U16)).all()
    assert (result.bonds == np.floor(result.bonds)).all()
    assert not result.bonds[~result.permits].any()
    assert result.permits.sum() <= 4


@given(worlds(), st.randoms(use_true_random=False))
def test_uids_are_only_names(world: yuma.Subnet, random: Random) -> None:
    order = list(range(len(world.stake)))
    random.shuffle(order)
    straight, mixed = epoch_of(world), epoch_of(permuted(world, order))
    assert mixed.permits.tolist() == straight.permits[order].tolist()
    for name in ("incentive", "dividends", "emission", "consensus", "trust", "validator_trust"):
        assert getattr(mixed, name) == pytest.approx(getattr(straight, name)[order], abs=1e-9)
    assert mixed.bonds == pytest.approx(straight.bonds[np.ix_(order, order)], abs=1)


@given(worlds(), st.floats(0.001, 1_000))
def test_only_proportions_within_a_row_matter(world: yuma.Subnet, factor: float) -> None:
    scaled = world.weights.copy()
    scaled[0] *= factor
    result, again = epoch_of(world), epoch_of(replace(world, weights=scaled))
    assert again.incentive == pytest.approx(result.incentive, abs=1e-9)
    assert again.dividends == pytest.approx(result.dividends, abs=1e-9)


@given(worlds(), st.integers(2, 1_000))
def test_only_proportions_of_stake_matter(world: yuma.Subnet, factor: int) -> None:
    result, again = epoch_of(world), epoch_of(replace(world, stake=world.stake * factor))
    assert again.incentive == pytest.approx(result.incentive, abs=1e-9)
    assert again.dividends == pytest.approx(result.dividends, abs=1e-9)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=4),
    st.lists(st.integers(1, 100), min_size=1, max_size=4),
    st.lists(st.integers(0, U16), min_size=3, max_size=3).filter(any),
)
def test_a_minority_that_votes_for_its_own_gets_nothing_for_it(
    honest: list[int], cartel: list[int], row: list[int]
) -> None:
    honest = [sum(cartel) + 1, *honest]
    validators = len(honest) + len(cartel)
    crony = validators + 3
    provers = {validators + place: weight for place, weight in enumerate(row)}
    result = epoch_of(voted([*honest, *cartel, 0, 0, 0, 0], provers, range(len(honest)), crony), 99)
    assert result.consensus[crony] == 0
    assert result.incentive[crony] == 0
    assert not result.dividends[len(honest) : validators].any()
    assert result.incentive[validators:crony] == pytest.approx(np.array(row) / sum(row))


@given(worlds())
def test_without_change_bonds_come_to_rest(world: yuma.Subnet) -> None:
    world = replace(world, registered_at=np.zeros_like(world.registered_at))
    for _ in range(400):
        result = epoch_of(world)
        if np.array_equal(result.bonds, world.bonds):
            return
        world = replace(world, bonds=result.bonds, permits=result.permits)
    pytest.fail("bonds still move after 400 epochs")


@settings(max_examples=30)
@given(worlds(), st.floats(0, 1))
def test_the_bonds_penalty_lies_between_set_and_clipped_weights(world: yuma.Subnet, penalty: float) -> None:
    clipped = yuma.clipped_weights(world.weights, world.weights.mean(axis=0))
    between = yuma.bond_weights(world.weights, clipped, penalty)
    assert (between <= world.weights + 1e-6).all()
    assert (between >= clipped - 1e-6).all()
    assert yuma.bond_weights(world.weights, clipped, 1.0) == pytest.approx(clipped, abs=1e-6)
