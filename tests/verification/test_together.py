"""Completions that are looked at together become the very evidence that each becomes by itself."""

from __future__ import annotations

import numpy as np
import pytest

from targon.protocol.suspicions import LEAD_EDGES, NO_RIVAL, SUSPICIONS
from targon.verification.bets import bets_of
from targon.verification.evidence import EvidenceState, advance
from targon.verification.observations import GAP_EDGES, Observations
from targon.verification.together import MOST_POSITIONS, advance_by, gains_of
from tests.verification.completions import band_with

BETS = bets_of(band_with())


def completion(rng: np.random.Generator, positions: int, share: float) -> Observations:
    """One of any kind, with about this share of mismatches."""
    mismatched = rng.random(positions) < share
    classes = rng.choice([*range(len(LEAD_EDGES)), NO_RIVAL], size=(positions, len(SUSPICIONS)))
    claimed = (classes != NO_RIVAL) & mismatched[:, None] & (rng.random(classes.shape) < 0.3)
    mass = np.where(rng.random(positions) < 0.2, np.nan, np.round(rng.random(positions) * 65_535) / 65_535)
    made = Observations(
        gaps=rng.choice([0.0, *GAP_EDGES], size=positions),
        mismatched=mismatched,
        unsure=rng.random(positions) < rng.choice([0.0, 0.1, 1.0], p=[0.6, 0.3, 0.1]),
        tail_mass=mass,
        in_tail=rng.random(positions) < 0.1,
        rivals=(classes << (4 * np.arange(len(SUSPICIONS)))).sum(axis=1).astype(np.uint32),
        claimed_rivals=(claimed << np.arange(len(SUSPICIONS))).sum(axis=1).astype(np.uint8),
    )
    return Observations.unpack(made.pack())


@pytest.mark.parametrize("seed", range(6))
def test_evidence_is_the_same_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 2, 7, 8, 9, 63, 64, 65, 200, 1_000], size=60)
    many = [completion(rng, int(size), rng.choice([0.0, 0.001, 0.01])) for size in sizes]
    gains = gains_of([one.pack() for one in many], BETS)
    assert gains is not None
    state, taken = EvidenceState(), 0
    for one, gain in zip(many, gains, strict=True):
        expected = advance(state, one, BETS)
        found = advance_by(state, gain)
        assert (gain.positions, gain.mismatches) == (one.positions, int(one.mismatched.sum()))
        if found is None:
            assert not state.convicted
        else:
            assert found.to_json() == expected.to_json()
            taken += 1
        state = expected
    assert taken > 20


def test_a_bound_that_may_be_reached_is_left_to_a_closer_look() -> None:
    rng = np.random.default_rng(1)
    one = completion(rng, 400, 0.5)
    assert advance(EvidenceState(), one, BETS).convicted
    gains = gains_of([one.pack()], BETS)
    assert gains is not None
    assert advance_by(EvidenceState(), gains[0]) is None


def test_all_are_left_to_a_closer_look_where_one_is_none() -> None:
    good = completion(np.random.default_rng(1), 64, 0.0)
    long = completion(np.random.default_rng(1), MOST_POSITIONS + 1, 0.0)
    for bad in ("", "not base64", long.pack()):
        assert gains_of([good.pack(), bad, good.pack()], BETS) is None
