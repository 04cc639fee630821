"""Many completions' observations looked at together: what each adds to the bets hangs on nothing before it.

It is :func:`targon.verification.evidence.advance`, to the last bit, at a fraction of the time where there are many:
whatever is known of a completion alone is computed for all at once, and only the rest in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.suspicions import claimed_rivals_of, lead_classes
from targon.verification.bets import CELLS, RIVAL_BETS, TAIL_BETS, Bets, tail_payoffs
from targon.verification.calibration import GUARD_LEVELS
from targon.verification.evidence import (
    EvidenceState,
    log_e_of,
    put_down,
    reserve,
    with_bad_completions,
)
from targon.verification.observations import (
    GAP_STRATA,
    Bools,
    Floats,
    Ints,
    Observations,
    gap_stratum,
    tail_stratum,
)

MOST_POSITIONS: Final = 2_048
"""Longer completions are not worth it."""

_PLACES = np.arange(RIVAL_BETS)


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """What a completion adds to the bets."""

    positions: int
    mismatches: int
    gains: Floats
    """``(BETS,)``: natural log of what each bet gains by all of it."""
    most: Floats
    """``(BETS,)``: the same, of its gains alone: no bet stood higher at any position."""


def gains_of(texts: Sequence[str], bets: Bets) -> list[Gain] | None:
    """What completions add to the bets, each given as :meth:`Observations.pack` writes it; none of them longer than
    ``MOST_POSITIONS``.

    Returns: one for each; None: some can't be unpacked, or are longer.
    """
    try:
        sizes, seen = Observations.unpack_all(texts, MOST_POSITIONS)
    except ValueError:
        return None
    count = len(sizes)
    owner = np.repeat(np.arange(count), sizes)
    mismatches = np.bincount(owner[seen.mismatched], minlength=count)
    sure = ~seen.unsure
    owner = owner[sure]
    sums = _sums(seen, sure, owner, count, bets)
    gains, most = (with_bad_completions(each) for each in sums)
    return [Gain(sizes[n], int(mismatches[n]), gains[n], most[n]) for n in range(count)]


def advance_by(state: EvidenceState, gain: Gain) -> EvidenceState | None:
    """As :func:`targon.verification.evidence.advance`.

    Returns: None, where each position has to be looked at: the bound may have been reached within the completion.
    """
    before, in_hand = put_down(state), reserve(state.completions + 1)
    if state.convicted_at is None and log_e_of(before + gain.most, in_hand) >= LOG_CONVICTION:
        return None
    wealth = before + gain.gains
    return EvidenceState.model_construct(
        completions=state.completions + 1,
        tokens=state.tokens + gain.positions,
        log_wealth=tuple(wealth.tolist()),
        log_peak=max(state.log_peak, log_e_of(wealth, in_hand)),
        convicted_at=state.convicted_at,
    )


def _sums(seen: Observations, sure: Bools, owner: Ints, count: int, bets: Bets) -> tuple[Floats, Floats]:
    """``(count, GAP_BETS + RIVAL_BETS + TAIL_BETS)`` each: all gains, and those above nothing.

    Args:
        owner: ``(sure positions,)``, which completion each is of.
    """
    starts = np.searchsorted(owner, np.arange(count))
    places = gap_stratum(seen.gaps[sure])
    mismatched = seen.mismatched[sure]
    telling = mismatched & bets.telling[places]
    earlier: Ints = np.cumsum(telling) - telling
    earlier -= earlier[starts[owner]]  # those of the completions before it
    places += np.minimum(earlier, GUARD_LEVELS - 1) * GAP_STRATA
    cells = places * 2 + mismatched
    counts = np.bincount(owner * CELLS + cells, minlength=count * CELLS).reshape(count, 1, CELLS)
    pays = np.zeros((owner.size, RIVAL_BETS + TAIL_BETS))
    claimed = claimed_rivals_of(seen.claimed_rivals[sure]).astype(np.int64)
    pays[:, :RIVAL_BETS] = bets.rivals[places[:, None], _PLACES, lead_classes(seen.rivals[sure]), claimed]
    masses = seen.tail_mass[sure]
    known = ~np.isnan(masses)
    strata = tail_stratum(masses[known])
    pays[known, RIVAL_BETS:] = tail_payoffs(
        masses[known], seen.in_tail[sure][known], bets.least[strata], bets.most[strata]
    )
    # One row of all completions' first positions, one of their second ones, …: so they are added up in the same order
    # as those of one completion alone.
    position = np.arange(owner.size) - starts[owner]
    rows = np.zeros((int(position.max(initial=-1)) + 1, count, pays.shape[1]))
    rows[position, owner] = pays
    return (
        np.concatenate([np.matmul(counts, bets.mismatch)[:, 0], rows.sum(axis=0)], axis=1),
        np.concatenate(
            [np.matmul(counts, bets.mismatch_gains)[:, 0], np.maximum(rows, 0.0).sum(axis=0)], axis=1
        ),
    )
