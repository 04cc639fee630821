"""What a request earns, and how what was earned becomes a score.

Source: DESIGN, "Rewards". Sums are exactly rounded (``math.fsum``), so the order of verdicts within a block
changes nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from targon.protocol.messages import Dialect
from targon.protocol.profile import Profile
from targon.protocol.verdicts import Purpose

PENALTY: Final = 0.1
"""p: what a failed challenge costs."""

INFERENCE_PENALTY_FACTOR: Final = 5
"""A failed or dropped inference costs this many times as much: a user was waiting."""

SPEED_SLOPE: Final = 4.0
"""How sharply speed tells around the median."""

COUNTED_DIALECTS: Final[frozenset[Dialect]] = frozenset({"targon/1", "greedy"})
"""Only work in these dialects counts, towards promotion and weight alike; other work is served and shown."""


def served(reward_factor: float, speed: float | None, median: float | None) -> float:
    """x of a served request: ``factor · (½ + ½·σ(4·(v/ṽ − 1)))``, so between half the factor and all of it.

    Args:
        reward_factor: the prover's tier's.
        speed: v, tokens/s after the first token; None if it could not be measured.
        median: ṽ, the model's median over the previous interval; None if there is none.

    Where either is missing, v/ṽ is 1: neither an advantage nor a loss.
    """
    ratio = speed / median if speed is not None and median else 1.0
    return reward_factor * (0.5 + 0.5 / (1.0 + math.exp(-SPEED_SLOPE * (ratio - 1.0))))


def failed(purpose: Purpose) -> float:
    """x of a failed challenge, or of a failed or dropped inference."""
    return -PENALTY * INFERENCE_PENALTY_FACTOR if purpose == "inference" else -PENALTY


def score_step(score: float, earned: Iterable[float], alpha: float) -> float:
    """The score after a block with work: one EMA step with the sum of x, never below 0."""
    return max(0.0, (1.0 - alpha) * score + alpha * math.fsum(earned))


def median_speed(speeds: Sequence[float]) -> float | None:
    """A model's median speed in tokens/s over an interval's served requests; None if none was measured."""
    return statistics.median(speeds) if speeds else None


def on_probation(verified_tokens: int, profile: Profile) -> bool:
    """Whether a prover has weight 0 still, because too few of its tokens were verified."""
    return verified_tokens < profile.probation_tokens
