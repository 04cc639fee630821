"""From honest runs to a band's bounds.

Each limit is that of the worst configuration. One of which little was seen borrows from all others, unless its
own counts contradict them. All limits of a band hold together with probability ``CONFIDENCE``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from targon.protocol.suspicions import (
    FIRST_AHEAD,
    NO_RIVAL,
    TEMPERATURE_OFFSETS,
    claimed_rivals_of,
    lead_classes,
)
from targon.verification.calibration import (
    TELLING_BOUND,
    TOLERANCE,
    Band,
    CalibrationError,
    Configuration,
    GapStratum,
    RivalBounds,
    Scope,
    TailStratum,
)
from targon.verification.confidence import lower_limit, upper_limit
from targon.verification.observations import (
    GAP_STRATA,
    TAIL_STRATA,
    Floats,
    Ints,
    Observations,
    gap_stratum,
    tail_stratum,
)

CONFIDENCE: Final = 0.999
"""Probability with which all limits of a band hold together."""

RESPONSIVE_BOUND: Final = 0.25
"""Strata with at most this bound say how much likelier a mismatch is after a telling one: a higher rate hardly
has room to grow."""

UNKNOWN_RECURRENCE: Final = 20.0
"""Taken where the data can't say less: twice what a log-normal effect with σ = 1.5 can amount to."""

MARGIN_QUANTILE: Final = 0.999
"""One honest position in a thousand may miss by more than the margin, before the tolerance."""

BORROWING_SHARE: Final = 0.1
"""A configuration with less than this share of a stratum's positions borrows from all others."""

CONTRADICTION_RISK: Final = 0.05
"""A configuration contradicts all others together where its lower limit, at this risk, lies above their upper."""

_CLAIMS = GAP_STRATA * (GAP_STRATA + 1) // 2 + 1 + 2 * TAIL_STRATA
"""Limits per configuration that shall hold together, beside those on rivals: each half of the risk."""

_RIVAL_CELLS: Final = 2 * GAP_STRATA * (len(TEMPERATURE_OFFSETS) // 2 + 1)
_RIVAL_CLAIMS: Final = _RIVAL_CELLS * (GAP_STRATA + 1) // 2


_CUT: Final = 0.0
_SIZES: Final = (*map(abs, TEMPERATURE_OFFSETS), _CUT)
"""By how much each suspicion's temperature is off; the last is of the cuts."""
_BEHIND, _CLOSE = range(2)


@dataclass(frozen=True, slots=True)
class HonestRun:
    """Completions of one honest configuration: one dtype, engine, way of batching, range of lengths."""

    name: str
    completions: Sequence[Observations]
    margins: Floats = field(default_factory=lambda: np.zeros(1))
    """``(any,)``: by how much the claimed token missed the replayed choice, in logits, at the sure positions."""


def measure(scope: Scope, runs: Sequence[HonestRun], others: Sequence[HonestRun] = ()) -> Band:
    """The bounds that honest runs support, for the scope in which they were made.

    Args:
        runs: made within the scope. Those that behave alike belong together as one.
        others: made outside of it, from which it may borrow: gaps are in logits, and mean the same at every
            temperature. Where its own counts contradict theirs, its own are taken.

    Raises:
        CalibrationError: if there is nothing to measure.
    """
    if not runs or any(not sum(c.positions for c in run.completions) for run in runs):
        raise CalibrationError("got a configuration without positions, expected some honest ones for each")
    risk = (1.0 - CONFIDENCE) / 2 / ((len(runs) + 2) * _CLAIMS)
    rivals_risk = (1.0 - CONFIDENCE) / 2 / ((len(runs) + 2) * _RIVAL_CLAIMS)
    tallies = [_Tally.of(run) for run in runs]
    together = _Tally.sum(tallies)
    everything = _Tally.sum([together, *map(_Tally.of, others)])
    gaps = tuple(_gap_stratum(tallies, together, everything, stratum, risk) for stratum in range(GAP_STRATA))
    bounds = np.array([stratum.bound for stratum in gaps])
    return Band(
        scope=scope,
        gaps=gaps,
        rivals=_rival_bounds(tallies, everything, bounds, rivals_risk),
        recurrence=_recurrence(runs, others, bounds, risk),
        margin=TOLERANCE * max(float(np.quantile(run.margins, MARGIN_QUANTILE)) for run in runs),
        tails=tuple(_tail_stratum(tallies, together, stratum, risk) for stratum in range(TAIL_STRATA)),
        configurations=tuple(
            Configuration(
                name=run.name,
                completions=len(run.completions),
                positions=int(tally.positions.sum()),
                mismatches=tuple(tally.mismatches.tolist()),
            )
            for run, tally in zip(runs, tallies, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Tally:
    """One configuration's counts per stratum."""

    positions: Ints
    mismatches: Ints
    tails: Ints
    hits: Ints
    expected: Floats
    rivals: Ints
    claims: Ints
    """``(GAP_STRATA, 2, suspicions)``: rivals that would be drawn, and those that come close; how many of them
    were claimed."""

    @classmethod
    def of(cls, run: HonestRun) -> _Tally:
        sure = [~one.unsure for one in run.completions]
        pick = list(zip(run.completions, sure, strict=True))
        strata = gap_stratum(np.concatenate([one.gaps[keep] for one, keep in pick]))
        mismatched = np.concatenate([one.mismatched[keep] for one, keep in pick])
        masses = np.concatenate([one.tail_mass[keep] for one, keep in pick])
        hits = np.concatenate([one.in_tail[keep] for one, keep in pick])
        known = ~np.isnan(masses)
        tails = tail_stratum(masses[known])
        classes = lead_classes(np.concatenate([one.rivals[keep] for one, keep in pick]))
        claimed = claimed_rivals_of(np.concatenate([one.claimed_rivals[keep] for one, keep in pick]))
        near = np.stack([classes < FIRST_AHEAD, (classes >= FIRST_AHEAD) & (classes < NO_RIVAL)], axis=1)
        return cls(
            positions=np.bincount(strata, minlength=GAP_STRATA),
            mismatches=np.bincount(strata[mismatched], minlength=GAP_STRATA),
            tails=np.bincount(tails, minlength=TAIL_STRATA),
            hits=np.bincount(tails[hits[known]], minlength=TAIL_STRATA),
            expected=np.bincount(tails, weights=masses[known], minlength=TAIL_STRATA).astype(np.float64),
            rivals=np.stack([near[strata == one].sum(axis=0) for one in range(GAP_STRATA)]),
            claims=np.stack(
                [(near & claimed[:, None])[strata == one].sum(axis=0) for one in range(GAP_STRATA)]
            ),
        )

    @classmethod
    def sum(cls, tallies: Sequence[_Tally]) -> _Tally:
        """All configurations as one."""
        return cls(*(np.sum([getattr(tally, name) for tally in tallies], axis=0) for name in cls.__slots__))


def _gap_stratum(
    tallies: Sequence[_Tally], together: _Tally, everything: _Tally, stratum: int, risk: float
) -> GapStratum:
    own = slice(stratum, stratum + 1)
    everybody = _worst_rate(everything, stratum, risk)
    if _limit(lower_limit, together, own, CONTRADICTION_RISK) > everybody:
        everybody = _worst_rate(together, stratum, risk)
    worst = everybody
    for tally in tallies:
        much = tally.positions[stratum] >= BORROWING_SHARE * everything.positions[stratum]
        if much or _limit(lower_limit, tally, own, CONTRADICTION_RISK) > everybody:
            worst = max(worst, _worst_rate(tally, stratum, risk))
    return GapStratum(
        positions=int(together.positions[stratum]),
        mismatches=int(together.mismatches[stratum]),
        bound=min(1.0, TOLERANCE * worst),
    )


def _worst_rate(tally: _Tally, stratum: int, risk: float) -> float:
    """The upper limit of a configuration's mismatch rate in a stratum.

    Noise that flips a gap flips a smaller one at least as often: so a stratum's rate is at most the mean rate of
    any run of strata that ends with it, and may borrow their positions, unless the counts contradict that.
    """
    alone = _limit(upper_limit, tally, slice(stratum, stratum + 1), risk)
    least = _limit(lower_limit, tally, slice(stratum, stratum + 1), risk)
    pooled = [_limit(upper_limit, tally, slice(first, stratum + 1), risk) for first in range(stratum)]
    return min([alone, *(limit for limit in pooled if limit >= least)])


def _rival_bounds(
    tallies: Sequence[_Tally], everything: _Tally, gap_bounds: Floats, risk: float
) -> tuple[RivalBounds, ...]:
    """Per suspicion; two that differ only in direction are one: rounding knows none.

    Wherever in its stratum a gap lies, noise flips it no more often than the gaps of the stratum below, on average:
    so their bound holds for the claims of rivals, too, where these are near-ties.
    """
    found: dict[float, RivalBounds] = {}
    for size in dict.fromkeys(_SIZES):
        group = np.flatnonzero(np.array(_SIZES) == size)
        limits = [
            [
                min(
                    TOLERANCE * _worst_claims(tallies, everything, (stratum, side, group), risk),
                    1.0 if stratum == 0 or _beyond(side, size) else float(gap_bounds[stratum - 1]),
                )
                for stratum in range(GAP_STRATA)
            ]
            for side in range(2)
        ]
        found[size] = RivalBounds(behind=tuple(limits[_BEHIND]), close=tuple(limits[_CLOSE]))
    return tuple(found[size] for size in _SIZES)


def _beyond(side: int, size: float) -> bool:
    """Whether such rivals stand beyond the cut."""
    return side == _BEHIND and size == _CUT


def _worst_claims(
    tallies: Sequence[_Tally], everything: _Tally, cell: tuple[int, int, Ints], risk: float
) -> float:
    """The upper limit of how often rivals are claimed: of all configurations together, or of one, or one direction,
    that contradicts them.

    As with mismatches, a stratum borrows from those of smaller gaps. A rival beyond the cut that would be drawn without
    it is no near-tie of the one that is drawn: how often honest engines claim it has nothing to do with the gap,
    so there all strata are one.
    """
    stratum, side, group = cell
    anywhere = _beyond(side, _SIZES[group[0]])
    runs = [(0, GAP_STRATA)] if anywhere else [(first, stratum + 1) for first in range(stratum + 1)]

    def counts(tally: _Tally, which: Ints, first: int, end: int) -> tuple[int, int]:
        cells = (slice(first, end), side, which)
        return int(tally.claims[cells].sum()), int(tally.rivals[cells].sum())

    own = counts(everything, group, stratum, stratum + 1)
    least = lower_limit(*own, risk)
    limits = [upper_limit(*counts(everything, group, *run), risk) for run in runs]
    worst = min([limit for limit in limits if limit >= least] or [upper_limit(*own, risk)])
    for tally, which in [*((tally, group) for tally in tallies), *((everything, [one]) for one in group)]:
        part = counts(tally, np.asarray(which), stratum, stratum + 1)
        if lower_limit(*part, CONTRADICTION_RISK / _RIVAL_CELLS) > worst:
            worst = max(worst, upper_limit(*part, risk))
    return worst


def _limit(limit: Callable[[int, int, float], float], tally: _Tally, strata: slice, risk: float) -> float:
    return limit(int(tally.mismatches[strata].sum()), int(tally.positions[strata].sum()), risk)


def _recurrence(runs: Sequence[HonestRun], others: Sequence[HonestRun], bounds: Floats, risk: float) -> float:
    """Mismatches after a telling one of the same completion, against how many there would be if they had
    nothing to do with it.

    All runs together, each against its own rates: one that is worse throughout shows no recurrence by that.
    Those outside the scope count, too, unless the scope's own contradict them.
    """
    own = np.sum([_repeats(run, bounds) for run in runs], axis=0)
    everything = np.sum([own, *(_repeats(run, bounds) for run in others)], axis=0)
    worst = _recurrence_limit(upper_limit, everything, risk)
    if _recurrence_limit(lower_limit, own, CONTRADICTION_RISK) > worst:
        worst = _recurrence_limit(upper_limit, own, risk)
    return min(max(TOLERANCE, worst), UNKNOWN_RECURRENCE)


def _repeats(run: HonestRun, bounds: Floats) -> Floats:
    """``(3,)``: mismatches after a telling one, positions after one, and how many mismatches those would have
    if they had nothing to do with it."""
    telling, responsive = bounds <= TELLING_BOUND, bounds <= RESPONSIVE_BOUND
    tally = _Tally.of(run)
    after = np.zeros(GAP_STRATA)
    again = 0
    for one in run.completions:
        strata, mismatched = gap_stratum(one.gaps[~one.unsure]), one.mismatched[~one.unsure]
        told = mismatched & telling[strata]
        later = (np.cumsum(told) - told > 0) & responsive[strata]
        after += np.bincount(strata[later], minlength=GAP_STRATA)
        again += int((mismatched & later).sum())
    rates = tally.mismatches / np.maximum(tally.positions, 1)
    return np.array([again, after.sum(), after @ rates])


def _recurrence_limit(limit: Callable[[int, int, float], float], repeats: Floats, risk: float) -> float:
    again, exposed, unrelated = repeats.tolist()
    if unrelated == 0.0:
        return UNKNOWN_RECURRENCE if limit is upper_limit else 0.0
    return float(limit(int(again), int(exposed), risk) * exposed / unrelated)


def _tail_stratum(tallies: Sequence[_Tally], together: _Tally, stratum: int, risk: float) -> TailStratum:
    least, most = _tail_factors(together, stratum, risk)
    for tally in tallies:
        low, high = _tail_factors(tally, stratum, risk)
        if high < least or low > most:  # its own counts contradict the others'
            least, most = min(least, low), max(most, high)
    return TailStratum(
        positions=int(together.tails[stratum]),
        hits=int(together.hits[stratum]),
        expected=float(together.expected[stratum]),
        least=max(0.0, 1.0 - TOLERANCE * max(0.0, 1.0 - least)),
        most=min(1.0 + TOLERANCE * max(0.0, most - 1.0), 1.0 / _EDGE_OF_NOTHING),
    )


def _tail_factors(tally: _Tally, stratum: int, risk: float) -> tuple[float, float]:
    """Confidence limits of how often the tail is hit, against what its mass says."""
    count, mass, hits = int(tally.tails[stratum]), float(tally.expected[stratum]), int(tally.hits[stratum])
    if mass == 0.0:
        return 0.0, 1.0 / _EDGE_OF_NOTHING
    return lower_limit(hits, count, risk) * count / mass, upper_limit(hits, count, risk) * count / mass


_EDGE_OF_NOTHING: Final = 1e-9
"""A factor of 1 / this leaves nothing to bet on."""
