"""Scores as the weights that the chain stores: integers from 1 to 65535, zeros left out.

``round-half-up(65535 · w / max w)`` in exact arithmetic. The largest is 65535, order is kept, and applying
the rule again (the chain scales what it is given so that the largest is 65535) changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from targon.protocol.primitives import Uid

MAX_WEIGHT: Final = 65_535


@dataclass(frozen=True, slots=True)
class NoWeights:
    """There is nothing to set."""

    reason: str
    """Why, in words."""


def u16_weights(scores: Mapping[Uid, float]) -> dict[Uid, int] | NoWeights:
    """Weights from scores, in UID order; or why there are none.

    Raises:
        ValueError: if a score is negative, infinite or not a number.
    """
    for uid, score in scores.items():
        if not (math.isfinite(score) and score >= 0):
            raise ValueError(f"score of UID {uid}: got {score!r}, expected a finite number >= 0")
    if not scores:
        return NoWeights("there is no prover")
    top = Fraction(max(scores.values()))
    if not top:
        return NoWeights(f"every score of the {len(scores)} provers is 0")
    weights = {uid: _round_half_up(MAX_WEIGHT * Fraction(scores[uid]) / top) for uid in sorted(scores)}
    return {uid: weight for uid, weight in weights.items() if weight}


def _round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))
