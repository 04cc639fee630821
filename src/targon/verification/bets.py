"""What is bet, position by position: the alternatives to an honest prover, and what each pays.

A bet on a mismatch has a bound b, which an honest prover's probability doesn't exceed given everything
before it and the replayed gap, and an alternative q ≥ b. It pays q / b on a mismatch and (1 − q) / (1 − b)
on a match: under any probability p ≤ b it is worth 1 + (p − b)(q − b) / (b(1 − b)) ≤ 1. Where an alternative
is no worse than the bound, q = b: no bet.

A bet on the tail has a bound b and a factor r on the odds: it pays r / (1 − b + rb) if the token is in the
tail and 1 / (1 − b + rb) if not: worth (1 + p(r − 1)) / (1 + b(r − 1)), at most 1 for r > 1 and p ≤ b, and
for r < 1 and p ≥ b.

A bet on a rival is one on a mismatch whose very token was foretold (:mod:`targon.protocol.suspicions`). Its bound is
that of such rivals: their leads tell something of where in its stratum the gap lies. The alternative is how often
the rival, by its lead, is drawn if the suspicion is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from targon.protocol.suspicions import FIRST_AHEAD, NO_RIVAL, SUSPICIONS, TEMPERATURE_OFFSETS
from targon.verification.calibration import GUARD_LEVELS, TELLING_BOUND, Band
from targon.verification.observations import GAP_STRATA, Bools, Floats

NOISE_SCALES: Final = (0.08, 0.14, 0.25, 0.5, 1.0, 3.0)
"""Decay lengths τ of the mismatch probability over the gap: honest bf16 noise has about 0.04, int8 weights
0.14, fp8 weights or a temperature off by 0.1 have 0.3, int4 weights have 2."""

FLAT_SHARES: Final = (0.01, 0.04, 0.2)
"""Shares of positions with a wrong token, whatever the gap: a sampler bug, cheating now and then."""

RIVAL_CHANCES: Final = (0.9, 0.9, 0.85, 0.75, 0.65, 0.55, 0.48, 0.3, 0.18, 0.05)
"""Chances that a rival is claimed if the suspicion is true, by the class of its lead (``LEAD_EDGES``)."""

TAIL_ODDS: Final = (0.5, 0.8, 1.25, 2.0)
"""Factors on the odds of an unlikely token: below 1 too cold, above 1 too hot."""

BAD_COMPLETIONS: Final = (0.02, 0.2)
"""Shares of completions that are bad as a whole, while the others are honest."""

GAP_BETS: Final = len(NOISE_SCALES) + len(FLAT_SHARES)
RIVAL_BETS: Final = len(SUSPICIONS)
TAIL_BETS: Final = len(TAIL_ODDS)
BETS: Final = GAP_BETS + RIVAL_BETS + TAIL_BETS + len(BAD_COMPLETIONS)

STAKES: Final = (
    (0.50 / GAP_BETS,) * GAP_BETS
    + (0.30 / RIVAL_BETS,) * RIVAL_BETS
    + (0.08 / TAIL_BETS,) * TAIL_BETS
    + (0.12 / len(BAD_COMPLETIONS),) * len(BAD_COMPLETIONS)
)
"""What is staked on each bet of the mixture: 1 in all."""

BET_WORDS: Final = (
    *(f"noise of {scale:g} logits, as of other weights or another model" for scale in NOISE_SCALES),
    *(f"wrong tokens at {share:.0%} of positions, however clear the right one" for share in FLAT_SHARES),
    *(
        f"a temperature {abs(offset):g} {'higher' if offset > 0.0 else 'lower'} than asked for"
        for offset in TEMPERATURE_OFFSETS
    ),
    "top-p and top-k ignored",
    *(f"unlikely tokens at {odds:g} times their odds" for odds in TAIL_ODDS),
    *(f"{share:.0%} of answers bad, the others honest" for share in BAD_COMPLETIONS),
)
"""What each bet is against."""

LEAD_CLASSES: Final = 16
"""As many as four bits can tell apart."""

CELLS: Final = GUARD_LEVELS * GAP_STRATA * 2
"""What a bet on a mismatch depends on: earlier telling mismatches, stratum, and whether there is one now."""

_TYPICAL_GAPS: Final = (0.01, 0.033, 0.073, 0.145, 0.33, 0.72, 1.45, 2.9, 5.5)
"""One for each stratum, at which an alternative is evaluated."""

_MOST: Final = 0.98
"""No alternative is surer of a mismatch than this, so that no single match ruins a bet."""


@dataclass(frozen=True, slots=True, eq=False)
class Bets:
    """A band's bets, tabulated."""

    mismatch: Floats
    """``(CELLS, GAP_BETS)``: natural log of what the bets on mismatches pay, by (earlier telling
    mismatches, stratum, whether there is one), flattened."""
    mismatch_gains: Floats
    """``(CELLS, GAP_BETS)``: the same, with 0 for every loss."""
    rivals: Floats
    """``(GUARD_LEVELS · GAP_STRATA, RIVAL_BETS, LEAD_CLASSES, 2)``: natural log of what the bet on a rival pays, by
    (earlier telling mismatches, stratum), suspicion, the class of its lead, and whether it is claimed."""
    telling: Bools
    """``(GAP_STRATA,)``: whether a mismatch raises the bounds for the rest of its completion."""
    least: Floats
    most: Floats
    """``(TAIL_STRATA,)``: factors on the tail mass."""


def alternatives() -> Floats:
    """``(GAP_BETS, GAP_STRATA)``: mismatch probabilities of the alternatives, before the bound."""
    gaps, scales = np.array(_TYPICAL_GAPS), np.array(NOISE_SCALES)[:, None]
    chances: Floats = np.empty((GAP_BETS, GAP_STRATA))
    chances[: len(NOISE_SCALES)] = np.where(scales < 1.0, 0.6, 0.75) * np.exp(-gaps / scales)
    chances[len(NOISE_SCALES) :] = np.array(FLAT_SHARES)[:, None]
    return chances


def guarded_bounds(band: Band) -> Floats:
    """``(GUARD_LEVELS, GAP_STRATA)``: bounds on the mismatch probability after 0, 1, 2 … telling mismatches.

    Honest requests differ: a mismatch makes it likelier that this is one of the worse ones. With an effect θ
    of mean 1 on all rates of a completion, the expectation of the next mismatch after m of them is at most
    E[θᵐ⁺¹] / E[θᵐ] times its mean (matches only lower it); where θ is log-normal, that is E[θ²]ᵐ. With R the
    measured recurrence, the factors are Rᵐ.
    """
    return _guarded(np.array([stratum.bound for stratum in band.gaps]), band)


def rival_bounds(band: Band) -> Floats:
    """``(GUARD_LEVELS, GAP_STRATA, RIVAL_BETS, LEAD_CLASSES)``: bounds on the probability that a rival is claimed,
    guarded in the same way. Where there is no rival the bound is 1."""
    sides = np.array([(one.behind, one.close) for one in band.rivals])
    classes = np.arange(LEAD_CLASSES)
    known = np.moveaxis(sides[:, (classes >= FIRST_AHEAD).astype(int)], 2, 0)
    return _guarded(np.where(classes < NO_RIVAL, known, 1.0), band)


def _guarded(base: Floats, band: Band) -> Floats:
    factors = (band.recurrence ** np.arange(GUARD_LEVELS)).reshape(-1, *[1] * base.ndim)
    bounds: Floats = np.minimum(1.0, factors * base)
    return bounds


def _bets_on_rivals(band: Band) -> Floats:
    base = np.minimum(rival_bounds(band), _MOST)
    promised = np.array(RIVAL_CHANCES + (0.0,) * (LEAD_CLASSES - len(RIVAL_CHANCES)))
    chances = np.maximum(promised, base)  # below the bound there is no bet
    pays: Floats = np.log(np.stack([(1.0 - chances) / (1.0 - base), chances / base], axis=-1))
    return pays.reshape(GUARD_LEVELS * GAP_STRATA, *pays.shape[2:])


@lru_cache(maxsize=256)
def bets_of(band: Band) -> Bets:
    """Tabulate a band's bets."""
    bounds = guarded_bounds(band)
    table = np.zeros((GUARD_LEVELS, GAP_STRATA, 2, GAP_BETS))
    flat = np.arange(GAP_BETS) >= len(NOISE_SCALES)
    for level in range(GUARD_LEVELS):
        for stratum in range(GAP_STRATA):
            bound = float(bounds[level, stratum])
            if bound >= _MOST:
                continue
            shapes = alternatives()[:, stratum]
            wanted = np.where(flat, bound + shapes * (1.0 - bound), shapes)
            chosen = np.clip(wanted, bound, _MOST)
            table[level, stratum, 0] = np.log((1.0 - chosen) / (1.0 - bound))
            table[level, stratum, 1] = np.log(chosen / bound)
    return Bets(
        mismatch=table.reshape(CELLS, GAP_BETS),
        mismatch_gains=np.maximum(table, 0.0).reshape(CELLS, GAP_BETS),
        rivals=_bets_on_rivals(band),
        telling=np.array([stratum.bound <= TELLING_BOUND for stratum in band.gaps]),
        least=np.array([stratum.least for stratum in band.tails]),
        most=np.array([stratum.most for stratum in band.tails]),
    )


def tail_payoffs(masses: Floats, in_tail: Bools, least: Floats, most: Floats) -> Floats:
    """``(positions, TAIL_BETS)``: natural log of what the bets on the tail pay.

    Args:
        masses: ``(positions,)``, the tail masses.
        least, most: ``(positions,)``, factors on them that are within bounds.
    """
    cold = (masses * least)[:, None] * _COLDER
    hot = np.minimum(1.0, masses * most)[:, None] * _HOTTER
    if_not: Floats = -np.log1p(np.concatenate([cold, hot], axis=1))
    if_not[in_tail] += _LOG_ODDS
    return if_not


_ODDS = np.array(TAIL_ODDS)
_LOG_ODDS = np.log(_ODDS)
_COLDER = _ODDS[_ODDS < 1.0] - 1.0
_HOTTER = _ODDS[_ODDS > 1.0] - 1.0
