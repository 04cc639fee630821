"""What the replay of one completion says, as the evidence takes it in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from targon.protocol.replay import Replay

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]

GAP_EDGES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""What divides the gaps into strata; a gap that equals an edge lies above it."""

GAP_STRATA: Final = len(GAP_EDGES) + 1

TAIL_EDGES: Final = (0.05, 0.1, 0.2, 0.4, 0.7)
"""What divides the tail masses into strata."""

TAIL_STRATA: Final = len(TAIL_EDGES) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """One completion, position by position, in order. All arrays have the shape ``(positions,)``.

    Raises:
        ValueError: if lengths differ, a gap is negative or no number, or a tail mass lies outside [0, 1].
    """

    gaps: Floats
    """By how much the replayed sampler's best token leads its second-best, in logits (so that rounding means the
    same at every temperature), ≥ 0. The claimed token has no part in it."""
    mismatched: Bools
    """Whether the claimed token is another than the replayed sampler's choice."""
    unsure: Bools
    """Where the replay could not say for certain, or the draw hangs on where exactly a cut falls: such a
    position is skipped. The claimed token has no part in that either."""
    tail_mass: Floats
    """Probability of all tokens below ``TAIL_PROBABILITY`` in the distribution that was sampled from; NaN
    where there is none to speak of (T = 0) or it isn't known: no bet on surprisal there."""
    in_tail: Bools
    """Whether the claimed token is one of those."""

    @classmethod
    def of(cls, replay: Replay, temperature: float) -> Self:
        """What a replay says, for the evidence.

        Args:
            temperature: at which the tokens were asked for.
        """
        broken = np.isnan(replay.gaps)
        return cls(
            gaps=np.where(broken, 0.0, replay.gaps) * (temperature or 1.0),
            mismatched=replay.margins > 0.0,
            unsure=replay.unsure | replay.on_cut | broken,
            tail_mass=replay.tail_mass,
            in_tail=replay.in_tail,
        )

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) != 1 or self.gaps.ndim != 1:
            raise ValueError(f"got arrays of shapes {shapes}, expected one length for all")
        if not (self.gaps >= 0.0).all():
            raise ValueError("gaps: got a negative one or NaN, expected values >= 0")
        if ((self.tail_mass < 0.0) | (self.tail_mass > 1.0)).any():
            raise ValueError("tail_mass: got one outside [0, 1], expected a probability, or NaN for none")

    @property
    def positions(self) -> int:
        """How many there are, unsure ones included."""
        return int(self.gaps.size)


def gap_stratum(gaps: Floats) -> Ints:
    """The stratum of each gap, 0 to ``GAP_STRATA`` − 1."""
    return np.searchsorted(_GAP_EDGES, gaps, side="right")


def tail_stratum(masses: Floats) -> Ints:
    """The stratum of each tail mass, 0 to ``TAIL_STRATA`` − 1."""
    return np.searchsorted(_TAIL_EDGES, masses, side="right")


_GAP_EDGES = np.array(GAP_EDGES)
_TAIL_EDGES = np.array(TAIL_EDGES)
