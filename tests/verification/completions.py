"""Completions with known mismatch rates, and a band of known bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from targon.protocol.suspicions import NO_RIVALS, SUSPICIONS
from targon.verification.calibration import (
    Band,
    Configuration,
    GapStratum,
    Range,
    RivalBounds,
    Scope,
    TailStratum,
)
from targon.verification.measuring import HonestRun, measure
from targon.verification.observations import GAP_STRATA, TAIL_STRATA, Observations

GAPS = np.array([0.01, 0.033, 0.073, 0.145, 0.33, 0.72, 1.45, 2.9, 5.5])
"""One gap of each stratum."""
SHARES = np.array([0.012, 0.015, 0.03, 0.054, 0.15, 0.17, 0.219, 0.21, 0.14])
HONEST = np.array([0.51, 0.20, 0.11, 0.034, 0.0012, 0.0, 0.0, 0.0, 0.0])
INT8 = np.array([0.47, 0.52, 0.36, 0.24, 0.087, 0.002, 0.0, 0.0, 0.0])
INT4 = np.array([0.73, 0.74, 0.75, 0.72, 0.63, 0.56, 0.42, 0.18, 0.036])
BOUNDS = (0.85, 0.36, 0.2, 0.078, 0.004, 0.001, 0.001, 0.001, 0.001)

SCOPE = Scope(
    dialects=("targon/1",),
    temperature=Range(low=0.05, high=1.2),
    top_p=Range(low=0.9, high=1.0),
    top_k=(0, 50),
    max_prompt_tokens=512,
    max_tokens=256,
)


def observed(
    gaps: Sequence[float],
    mismatched: Sequence[bool],
    *,
    unsure: Sequence[bool] | None = None,
    tail_mass: Sequence[float] | None = None,
    in_tail: Sequence[bool] | None = None,
    rivals: Sequence[int] | None = None,
    claimed_rivals: Sequence[int] | None = None,
) -> Observations:
    """One completion, without a tail and without rivals unless told."""
    count = len(gaps)
    return Observations(
        gaps=np.array(gaps, dtype=np.float64),
        mismatched=np.array(mismatched, dtype=np.bool_),
        unsure=np.zeros(count, np.bool_) if unsure is None else np.array(unsure, np.bool_),
        tail_mass=np.full(count, np.nan) if tail_mass is None else np.array(tail_mass, np.float64),
        in_tail=np.zeros(count, np.bool_) if in_tail is None else np.array(in_tail, np.bool_),
        rivals=np.array([NO_RIVALS] * count if rivals is None else rivals, np.uint32),
        claimed_rivals=np.array([0] * count if claimed_rivals is None else claimed_rivals, np.uint8),
    )


def drawn(
    rng: np.random.Generator, rates: np.ndarray, positions: int = 64, heat: float = 1.0
) -> Observations:
    """A completion with these mismatch rates per stratum; its unlikely tokens have ``heat`` times the odds."""
    strata = rng.choice(GAP_STRATA, size=positions, p=SHARES)
    mass = rng.beta(1.0, 3.0, size=positions)
    return Observations(
        gaps=GAPS[strata],
        mismatched=rng.random(positions) < rates[strata],
        unsure=rng.random(positions) < 0.01,
        tail_mass=mass,
        in_tail=rng.random(positions) < heat * mass / (1.0 - mass + heat * mass),
        rivals=np.full(positions, NO_RIVALS, np.uint32),
        claimed_rivals=np.zeros(positions, np.uint8),
    )


def run(name: str, rates: np.ndarray, completions: int, seed: int = 1) -> HonestRun:
    """A configuration."""
    rng = np.random.default_rng(seed)
    return HonestRun(name, [drawn(rng, rates) for _ in range(completions)])


def band_with(
    bounds: Sequence[float] = BOUNDS, *, recurrence: float = 2.0, least: float = 0.9, most: float = 1.1
) -> Band:
    """A band whose every bound is known."""
    return Band(
        scope=SCOPE,
        gaps=tuple(GapStratum(positions=1, mismatches=0, bound=bound) for bound in bounds),
        rivals=(RivalBounds(behind=tuple(bounds), close=tuple(bounds)),) * len(SUSPICIONS),
        recurrence=recurrence,
        tails=tuple(
            TailStratum(positions=1, hits=0, expected=0.5, least=least, most=most) for _ in range(TAIL_STRATA)
        ),
        configurations=(
            Configuration(name="known", completions=1, positions=9, mismatches=(0,) * GAP_STRATA),
        ),
    )


def measured(completions: int = 400) -> Band:
    """A band as honest runs make it."""
    return measure(SCOPE, [run("bf16", HONEST, completions)])
