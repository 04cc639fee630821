"""Yuma consensus against the worked examples of its source.

The examples are inputs and asserted outputs of opentensor/subtensor, ``pallets/subtensor/src/tests/epoch.rs``
and ``math.rs`` (commit 14bc6f9f), named where they are used. The chain computes in fixed point and floors at
every step, so its bonds may lie a few units of 65535 below exact arithmetic, and its shares 1e-4 away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from targon.chain import yuma

SHARES = 1e-4
BOND_UNITS = 3
U16 = 65_535
FOUR_VOTES = [[0, 0.1, 0], [0, 0.2, 0.4], [0, 0.3, 0.1], [0, 0.4, 0.5]]


def subnet(
    stake: Sequence[float],
    weights: Mapping[int, Mapping[int, int]] | None = None,
    *,
    last_update: Sequence[int] | None = None,
    registered_at: Sequence[int] | None = None,
) -> yuma.Subnet:
    """A subnet on which everybody was registered in block 0 and everybody with stake validates."""
    n = len(stake)
    matrix = np.zeros((n, n))
    for uid, row in (weights or {}).items():
        for target, weight in row.items():
            matrix[uid, target] = weight
    return yuma.Subnet(
        stake=np.array(stake, dtype=np.float64),
        permits=np.array(stake) > 0,
        last_update=np.array(last_update or [1] * n),
        registered_at=np.array(registered_at or [0] * n),
        weights=matrix,
        bonds=np.zeros((n, n)),
    )


def run(world: yuma.Subnet, *, block: int = 2, last_epoch_block: int = 1, cutoff: int = 5_000) -> yuma.Epoch:
    return yuma.epoch(
        world,
        block=block,
        last_epoch_block=last_epoch_block,
        max_validators=len(world.stake),
        activity_cutoff=cutoff,
    )


def with_row(world: yuma.Subnet, uid: int, row: Mapping[int, int]) -> yuma.Subnet:
    weights = world.weights.copy()
    weights[uid] = 0
    for target, weight in row.items():
        weights[uid, target] = weight
    return replace(world, weights=weights)


def after(world: yuma.Subnet, result: yuma.Epoch) -> yuma.Subnet:
    return replace(world, bonds=result.bonds, permits=result.permits)


class TestWorkedExamples:
    def test_a_neuron_alone_earns_nothing_by_voting_for_itself(self) -> None:
        """test_1_graph"""
        result = run(subnet([1.0], {0: {0: U16}}))
        assert result.incentive.tolist() == [0.0]
        assert result.dividends.tolist() == [0.0]
        assert result.emission.tolist() == [1.0]

    def test_ten_neurons_that_vote_for_themselves_share_by_stake(self) -> None:
        """test_10_graph"""
        result = run(subnet([1.0] * 10, {uid: {uid: U16} for uid in range(10)}))
        assert not result.ranks.any()
        assert not result.consensus.any()
        assert not result.incentive.any()
        assert not result.dividends.any()
        assert result.emission == pytest.approx([0.1] * 10)

    @pytest.mark.parametrize("servers_vote_for_themselves", [False, True])
    def test_sixty_four_validators_that_agree_share_evenly(self, servers_vote_for_themselves: bool) -> None:
        """test_512_graph"""
        row = dict.fromkeys(range(64, 512), U16 // 512)
        weights: dict[int, dict[int, int]] = dict.fromkeys(range(64), row)
        if servers_vote_for_themselves:
            weights |= {uid: {uid: U16} for uid in range(64, 512)}
        world = subnet([328_125.0] * 64 + [0.0] * 448, weights)
        for _ in range(3):
            result = run(world)
            world = after(world, result)
        assert np.floor(result.dividends * U16).tolist() == [1023] * 64 + [0] * 448
        assert np.floor(result.incentive * U16).tolist() == [0] * 64 + [146] * 448
        assert np.floor(result.consensus * U16).tolist() == [0] * 64 + [146] * 448
        assert np.floor(result.emission * 1e9 + 1e-3).tolist() == [7_812_500] * 64 + [1_116_071] * 448
        assert (result.bonds[:64, 64:] == U16).all()
        assert not result.bonds[64:].any()
        assert not result.bonds[:, :64].any()

    def test_bonds_follow_a_series_of_epochs(self) -> None:
        """test_bonds: four validators with stakes 1 to 4 leave one after the other; the third comes back."""
        quarters = {4: U16 // 4, 5: U16 // 2, 6: U16 // 4 * 3, 7: U16}
        world = subnet([1, 2, 3, 4, 0, 0, 0, 0], dict.fromkeys(range(4), quarters))
        alone = [{uid: {uid: U16}} for uid in range(3)]
        four = [0.0999975582, 0.2000012207, 0.2999926752, 0.4000085455]
        last = [0.0, 0.0, 0.0, 1.0]
        back = {2: {7: U16}}
        series: list[tuple[dict[int, dict[int, int]], int, list[int], list[float], list[float]]] = [
            ({}, 4, [16383, 32767, 49151, 65535], [0.1, 0.2, 0.3, 0.4], four),
            (alone[0], 4, [14582, 32767, 49151, 65535], [0.0899967, 0.2022211, 0.3033344, 0.4044477], four),
            (alone[1], 4, [12603, 28321, 49151, 65535], [0.0809936, 0.1819996, 0.3158593, 0.4211475], four),
            (alone[2], 7, [12602, 28320, 49150, 65535], [0.0] * 4, [0.0] * 4),
            (back, 7, [10951, 24609, 49150, 65535], [0.0728875, 0.1637973, 0.327131, 0.4361843], last),
            ({}, 7, [9559, 21482, 49150, 65535], [0.0655989, 0.1474132, 0.3372763, 0.4497117], last),
            ({}, 7, [8376, 18824, 49150, 65535], [0.0590361, 0.1326723, 0.3464063, 0.4618853], last),
        ]
        for block, (changes, column, bonds, dividends, incentive) in enumerate(series, start=2):
            for uid, row in changes.items():
                world = with_row(world, uid, row)
            result = run(world, block=block, last_epoch_block=block - 1)
            assert result.bonds[:4, column] == pytest.approx(bonds, abs=BOND_UNITS)
            assert result.dividends[:4] == pytest.approx(dividends, abs=SHARES)
            assert result.incentive[4:] == pytest.approx(incentive, abs=SHARES)
            world = after(world, result)

    def test_one_epoch_of_that_series_in_every_intermediate_value(self) -> None:
        """test_bonds, block 5: the two that are left agree on one server only."""
        quarters = {4: U16 // 4, 5: U16 // 2, 6: U16 // 4 * 3, 7: U16}
        world = subnet([1, 2, 3, 4, 0, 0, 0, 0], {0: {0: U16}, 1: {1: U16}, 2: {7: U16}, 3: quarters})
        result = run(world)
        assert result.active_stake == pytest.approx([0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0])
        assert result.weights[3, 4:] == pytest.approx([0.0999975584, 0.2000012207, 0.2999926754, 0.400008545])
        assert result.consensus == pytest.approx([0, 0, 0, 0, 0, 0, 0, 0.400008545])
        assert result.validator_trust == pytest.approx([0, 0, 0.400008545, 0.400008545, 0, 0, 0, 0])
        assert result.ranks == pytest.approx([0, 0, 0, 0, 0, 0, 0, 0.2800059812])
        assert result.trust == pytest.approx([0, 0, 0, 0, 0, 0, 0, 0.6087041323])
        assert result.incentive == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1])

    def test_stake_that_set_no_weights_lately_does_not_count(self) -> None:
        """test_active_stake: validator 0 alone updates its weights, then validator 1 does too."""
        half = {2: U16 // 2, 3: U16 // 2}
        world = subnet([1, 1, 1, 1], {0: half, 1: half}, last_update=[1, 1, 0, 0])
        first = run(world, block=1, last_epoch_block=0)
        assert np.floor(first.dividends * U16)[:2].tolist() == [32_767, 32_767]
        assert first.emission == pytest.approx([0.25] * 4)
        assert first.bonds[:2].tolist() == [[0, 0, U16, U16]] * 2

        world = replace(after(world, first), last_update=np.array([5_002, 1, 0, 0]))
        second = run(world, block=5_002, last_epoch_block=5_001)
        assert second.active_stake.tolist() == [1, 0, 0, 0]
        assert second.dividends == pytest.approx([36_044 / U16, 29_490 / U16, 0, 0], abs=SHARES)
        assert second.emission == pytest.approx([0.274999999, 0.224999999, 0.25, 0.25])
        assert second.bonds[:2, 2] == pytest.approx([65_535, 53_619], abs=BOND_UNITS)

        world = replace(after(world, second), last_update=np.array([5_002, 5_002, 0, 0]))
        third = run(world, block=5_003, last_epoch_block=5_002)
        assert third.active_stake.tolist() == [0.5, 0.5, 0, 0]
        assert third.dividends == pytest.approx([35_716 / U16, 29_818 / U16, 0, 0], abs=SHARES)
        assert third.emission == pytest.approx([0.272501132, 0.227498866, 0.25, 0.25], abs=SHARES)
        assert third.bonds[:2, 2] == pytest.approx([65_535, 54_712], abs=BOND_UNITS)

    def test_weights_and_bonds_on_a_replaced_neuron_do_not_count(self) -> None:
        """test_outdated_weights: UID 3 is registered anew in block 1; only validator 0 sets weights after."""
        two_thirds = {2: U16, 3: 32_768}
        world = subnet([1, 1, 1, 1], {0: two_thirds, 1: two_thirds, 2: {2: U16}, 3: {3: U16}})
        first = run(world, block=1, last_epoch_block=0)
        assert first.incentive == pytest.approx([0, 0, 0.6666632756, 0.3333367242])
        assert first.validator_trust == pytest.approx([1, 1, 0, 0])
        assert first.emission == pytest.approx([0.25, 0.25, 0.3333316378, 0.166668362])

        world = replace(
            after(world, first),
            stake=np.array([1.0, 1, 1, 0]),
            permits=np.array([True, True, True, False]),
            last_update=np.array([2, 1, 1, 1]),
            registered_at=np.array([0, 0, 0, 1]),
        )
        second = run(world, block=2, last_epoch_block=1)
        assert second.weights[0] == pytest.approx([0, 0, 0.6666632756, 0.3333367242])
        assert second.weights[1].tolist() == [0, 0, 1, 0]
        assert second.consensus == pytest.approx([0, 0, 0.6666632756, 0])
        assert second.trust[2] == pytest.approx(0.799997558)
        assert second.incentive.tolist() == [0, 0, 1, 0]
        assert second.dividends == pytest.approx([0.5, 0.5, 0, 0])
        assert second.emission == pytest.approx([0.25, 0.25, 0.5, 0])
        assert second.bonds[0, 2] == U16

    def test_without_weights_that_count_emission_goes_by_stake(self) -> None:
        """test_zero_weights: no weights, self-weights, outdated weights, and at last weights that count."""
        nothing = run(subnet([1, 0]), block=1)
        to_itself = run(subnet([1, 0], {1: {1: U16}}), block=2)
        outdated = run(subnet([1, 0], {0: {1: U16}}, last_update=[2, 1], registered_at=[0, 2]), block=2)
        for result in (nothing, to_itself, outdated):
            assert result.emission.tolist() == [1, 0]
        counted = run(subnet([1, 0], {0: {1: U16}}, last_update=[3, 1], registered_at=[0, 2]), block=3)
        assert counted.emission.tolist() == [0.5, 0.5]

    def test_bonds_to_a_neuron_registered_since_the_last_epoch_start_anew(self) -> None:
        """test_deregistered_miner_bonds"""
        two_thirds = {2: U16, 3: 32_768}
        world = subnet([1, 2, 0, 0], {0: two_thirds, 1: two_thirds}, last_update=[9, 9, 0, 0])
        world.bonds[0] = [0, 0, U16, U16]
        kept = run(world, block=10, last_epoch_block=5)
        renewed = run(replace(world, registered_at=np.array([0, 0, 0, 7])), block=10, last_epoch_block=5)
        assert kept.bonds[0, 3] == U16
        assert renewed.bonds[:2, 3].tolist() == [U16 // 2, U16]
        assert renewed.bonds[:2, 2].tolist() == kept.bonds[:2, 2].tolist()

    def test_permits_move_with_stake(self) -> None:
        """test_validator_permits"""
        first = yuma.validator_permits(np.array([0.2, 0.3, 0.0, 0.0, 0.5]), 3)
        assert first.tolist() == [True, True, False, False, True]
        second = yuma.validator_permits(np.array([0.2, 0.3, 8.0, 9.0, 0.5]), 3)
        assert second.tolist() == [False, False, True, True, True]

    @pytest.mark.parametrize(
        ("k", "expected"),
        [
            (0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (5, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
            (10, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            (100, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ],
    )
    def test_the_top_k_with_any_stake_hold_permits(self, k: int, expected: list[int]) -> None:
        """test_math_is_topk, for values above 0"""
        values = np.array([0.0, 1, 2, 3, 4, 5, 5, 5, 5, 6])
        assert yuma.validator_permits(values, k).tolist() == [bool(permit) for permit in expected]

    @pytest.mark.parametrize(
        ("stake", "scores", "expected"),
        [
            ([1.0], [1.0], 1.0),
            ([0.49, 0.51], [0.5, 1.0], 1.0),
            ([0.51, 0.49], [0.5, 1.0], 0.5),
            ([0.49, 0, 0.51], [0.5, 0.7, 1.0], 1.0),
            ([0.49, 0.01, 0.5], [0.5, 0.7, 1.0], 0.7),
            ([0.49, 0.51, 0], [0.5, 0.7, 1.0], 0.7),
            ([0, 0.49, 0.51], [0.5, 0.7, 1.0], 1.0),
            ([0, 0.49, 0, 0.51], [0.5, 0.5, 1.0, 1.0], 1.0),
            ([0, 0.49, 0, 0.51, 0], [0.5, 0.5, 1.0, 1.0, 0.5], 1.0),
            ([0.2] * 5, [0.8, 0.2, 1.0, 0.6, 0.4], 0.6),
            ([0.1] * 10, [0.8, 0.8, 0.2, 0.2, 1.0, 1.0, 0.6, 0.6, 0.4, 0.4], 0.6),
        ],
    )
    def test_the_weighted_median(self, stake: list[float], scores: list[float], expected: float) -> None:
        """test_math_weighted_median, with a majority of 0.51"""
        column = np.array(scores)[:, None]
        assert yuma.weighted_median(column, np.array(stake), 0.51).tolist() == [expected]

    @pytest.mark.parametrize(
        ("stake", "weights", "kappa", "expected"),
        [
            ([0, 0], [[0, 0], [0, 0]], 0.5, [0, 0]),
            ([0, 0.75, 0.25, 0], FOUR_VOTES, 0.24, [0, 0.3, 0.4]),
            ([0, 0.75, 0.25, 0], FOUR_VOTES, 0.26, [0, 0.2, 0.4]),
            ([0, 0.75, 0.25, 0], FOUR_VOTES, 0.76, [0, 0.2, 0.1]),
            ([0, 0.3, 0.2, 0.5], [*FOUR_VOTES[:3], [0, 0, 0.5]], 0.51, [0, 0, 0.4]),
        ],
    )
    def test_consensus_is_the_median_of_each_column(
        self, stake: list[float], weights: list[list[float]], kappa: float, expected: list[float]
    ) -> None:
        """test_math_weighted_median_col"""
        assert yuma.consensus(np.array(weights), np.array(stake), kappa).tolist() == expected

    def test_a_majority_of_nothing_takes_the_highest_score(self) -> None:
        assert yuma.weighted_median(np.array([[0.2], [0.7]]), np.array([0.5, 0.5]), 0.0).tolist() == [0.7]
