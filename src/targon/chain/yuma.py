"""Yuma consensus: from stake, weights and bonds to incentive, dividends and emission. Pure numpy.

The rules in the order in which one epoch applies them, a function each:

1. :func:`normalised_stake`: stake as shares of all stake.
2. :func:`validator_permits`: the K neurons with most stake may validate.
3. :func:`active_stake`: the shares of those that hold a permit and set weights lately.
4. :func:`admitted_weights`: rows of permit holders, without self-weights and weights older than their
   target, each row summing to 1.
5. :func:`consensus`: per column, the greatest weight that a majority of active stake supports.
6. :func:`clipped_weights` and :func:`validator_trust`: what stands above consensus is cut off.
7. :func:`ranks`, :func:`trust`, :func:`incentive`: what provers get.
8. :func:`bond_weights`, :func:`bonds_delta`, :func:`bonds_average`, :func:`dividends`: what verifiers get.
9. :func:`emission`: both together, half each; also the score by which neurons are replaced.

Source: opentensor/subtensor, ``pallets/subtensor/src/epoch/run_epoch.rs`` and ``math.rs`` (read at commit
14bc6f9f), and https://docs.learnbittensor.org/yuma-consensus. What is simplified here is listed in
``docs/chain.md``. Shapes: n is the number of neurons; a matrix is (n, n), row = who, column = about whom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

U16_MAX = 65_535

KAPPA = 32_767 / U16_MAX
"""The share of active stake that makes a majority: one half, as the chain stores it."""

BONDS_ALPHA = 0.1
"""Weight of the newest epoch in a bond (the chain's moving average of 900,000 in a million keeps 0.9)."""

BONDS_PENALTY = 1.0
"""How much clipping counts in bonds: 0 takes weights as they were set, 1 takes them clipped."""

RESOLUTION = 2.0**-32
"""The chain computes in 32 fractional bits: shares of stake that are closer than this are equal."""

_FLOOR_GUARD = 1e-6
"""Keeps a bond that stands exactly on the u16 grid from being floored off it by the last bit of a float."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """What an epoch starts from."""

    stake: Floats
    """``(n,)``, in any unit."""
    permits: Bools
    """``(n,)``: who held a permit when the epoch began."""
    last_update: Ints
    """``(n,)``: block of the last setting of weights, or of the registration where there was none."""
    registered_at: Ints
    """``(n,)``: block of registration."""
    weights: Floats
    """``(n, n)``: as set; only the proportions within a row matter."""
    bonds: Floats
    """``(n, n)``: as the last epoch left them; only the proportions within a column matter."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch comes to. Vectors ``(n,)``, matrices ``(n, n)``."""

    permits: Bools
    active_stake: Floats
    weights: Floats
    """Rows sum to 1 or 0."""
    consensus: Floats
    validator_trust: Floats
    ranks: Floats
    trust: Floats
    incentive: Floats
    """Sums to 1 or 0."""
    bonds: Floats
    """Whole numbers from 0 to 65535, the greatest of each column 65535."""
    dividends: Floats
    """Sums to 1 or 0."""
    emission: Floats
    """Sums to 1 (0 without any stake)."""


def epoch(
    subnet: Subnet,
    *,
    block: int,
    last_epoch_block: int,
    max_validators: int,
    activity_cutoff: int,
    kappa: float = KAPPA,
    bonds_alpha: float = BONDS_ALPHA,
    bonds_penalty: float = BONDS_PENALTY,
) -> Epoch:
    """One epoch.

    Args:
        block: the block whose beginning the epoch is.
        last_epoch_block: the block of the epoch before it.
        max_validators: how many neurons may hold a permit.
        activity_cutoff: blocks after which stake that set no weights is inactive.
    """
    shares = normalised_stake(subnet.stake)
    permits = validator_permits(shares, max_validators)
    inactive = subnet.last_update + activity_cutoff < block
    stake = active_stake(shares, subnet.permits & ~inactive)
    weights = admitted_weights(subnet.weights, subnet.permits, subnet.last_update, subnet.registered_at)
    agreed = consensus(weights, stake, kappa)
    clipped = clipped_weights(weights, agreed)
    ranked = ranks(clipped, stake)
    earned = incentive(ranked)
    delta = bonds_delta(bond_weights(weights, clipped, bonds_penalty), stake)
    renewed = subnet.registered_at >= last_epoch_block
    bonds = bonds_average(delta, np.where(renewed, 0.0, subnet.bonds), bonds_alpha)
    paid = dividends(bonds, earned)
    return Epoch(
        permits=permits,
        active_stake=stake,
        weights=weights,
        consensus=agreed,
        validator_trust=validator_trust(clipped),
        ranks=ranked,
        trust=trust(ranked, ranks(weights, stake)),
        incentive=earned,
        bonds=stored_bonds(bonds, permits),
        dividends=paid,
        emission=emission(earned, paid, stake, shares),
    )


def normalised_stake(stake: Floats) -> Floats:
    """``(n,)`` shares of all stake; all 0 where nobody has any."""
    return _sum_to_one(stake)


def validator_permits(stake: Floats, max_validators: int) -> Bools:
    """``(n,)``: who is among the ``max_validators`` with most stake and has some; of equals, higher UIDs."""
    ascending = np.argsort(stake, kind="stable")
    permits = np.zeros(len(stake), dtype=np.bool_)
    permits[ascending[max(0, len(stake) - max_validators) :]] = True
    return permits & (stake > 0)


def active_stake(stake: Floats, active: Bools) -> Floats:
    """``(n,)`` shares of the stake of active permit holders."""
    return _sum_to_one(np.where(active, stake, 0.0))


def admitted_weights(weights: Floats, permits: Bools, last_update: Ints, registered_at: Ints) -> Floats:
    """``(n, n)``: the weights that count, each row summing to 1, or to 0 where none count."""
    outdated = last_update[:, None] <= registered_at[None, :]
    myself = np.eye(len(permits), dtype=np.bool_)
    return _rows_sum_to_one(np.where(permits[:, None] & ~outdated & ~myself, weights, 0.0))


def consensus(weights: Floats, stake: Floats, kappa: float) -> Floats:
    """``(n,)``: the stake-weighted median of each column (see :func:`weighted_median`)."""
    voters = stake > 0
    if not voters.any():
        return np.zeros(weights.shape[1])
    return weighted_median(weights[voters], _sum_to_one(stake[voters]), kappa)


def weighted_median(scores: Floats, stake: Floats, kappa: float) -> Floats:
    """Per column, the lowest score that leaves less than a majority of stake above it.

    That is the lowest score s such that the stake of all scores ≤ s exceeds ``1 - kappa``; the highest score
    where none does.

    Args:
        scores: ``(voters, columns)``.
        stake: ``(voters,)``, positive, summing to 1.
        kappa: the share that makes a majority.
    """
    order = np.argsort(scores, axis=0, kind="stable")
    below_or_at = np.cumsum(stake[order], axis=0)
    enough = below_or_at > 1.0 - kappa + RESOLUTION
    enough[-1, :] = True
    place = np.argmax(enough, axis=0)
    columns = np.arange(scores.shape[1])
    median: Floats = scores[order[place, columns], columns]
    return median


def clipped_weights(weights: Floats, consensus: Floats) -> Floats:
    """``(n, n)``: no weight above its column's consensus."""
    return np.minimum(weights, consensus[None, :])


def validator_trust(clipped: Floats) -> Floats:
    """``(n,)``: the share of each row that survived clipping."""
    return np.asarray(clipped.sum(axis=1), dtype=np.float64)


def ranks(weights: Floats, stake: Floats) -> Floats:
    """``(n,)``: each column's weight, weighted by stake: ``R_j = Σ_i S_i W_ij``."""
    return np.asarray(stake @ weights, dtype=np.float64)


def trust(ranks: Floats, before_clipping: Floats) -> Floats:
    """``(n,)``: the share of each rank that survived clipping."""
    return _divided(ranks, before_clipping)


def incentive(ranks: Floats) -> Floats:
    """``(n,)``: ranks as shares."""
    return _sum_to_one(ranks)


def bond_weights(weights: Floats, clipped: Floats, penalty: float) -> Floats:
    """``(n, n)``: the weights that bonds are made from, between unclipped and clipped."""
    return weights + penalty * (clipped - weights)


def bonds_delta(weights: Floats, stake: Floats) -> Floats:
    """``(n, n)``: this epoch's bonds, ``S_i W_ij``, each column summing to 1, or to 0."""
    return _columns_sum_to_one(stake[:, None] * weights)


def bonds_average(delta: Floats, bonds: Floats, alpha: float) -> Floats:
    """``(n, n)``: the moving average of bonds, each column summing to 1, or to 0."""
    return _columns_sum_to_one(alpha * delta + (1.0 - alpha) * _columns_sum_to_one(bonds))


def dividends(bonds: Floats, incentive: Floats) -> Floats:
    """``(n,)``: verifiers earn by their bonds to those that earn: ``D_i = Σ_j B_ij I_j``, as shares."""
    return _sum_to_one(np.asarray(bonds @ incentive, dtype=np.float64))


def stored_bonds(bonds: Floats, permits: Bools) -> Floats:
    """``(n, n)``: bonds as the chain keeps them: u16, each column's greatest 65535, permit holders' only."""
    scaled = _divided(bonds, bonds.max(axis=0, initial=0.0)[None, :])
    return np.where(permits[:, None], np.floor(scaled * U16_MAX + _FLOOR_GUARD), 0.0)


def emission(incentive: Floats, dividends: Floats, active_stake: Floats, stake: Floats) -> Floats:
    """``(n,)`` shares of what the epoch pays out: half by incentive, half by dividends.

    Where nobody earned anything, by active stake; where none is active, by stake.
    """
    earned = incentive + dividends
    if earned.any():
        return _sum_to_one(earned)
    return active_stake if active_stake.any() else stake


def _sum_to_one(values: Floats) -> Floats:
    return _divided(values, np.asarray(values.sum()))


def _rows_sum_to_one(values: Floats) -> Floats:
    return _divided(values, values.sum(axis=1)[:, None])


def _columns_sum_to_one(values: Floats) -> Floats:
    return _divided(values, values.sum(axis=0)[None, :])


def _divided(values: Floats, by: Floats) -> Floats:
    """Element by element; 0 where the divisor is 0."""
    quotient = np.zeros_like(values)
    np.divide(values, by, out=quotient, where=by > 0)
    return quotient
