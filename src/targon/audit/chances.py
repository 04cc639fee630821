"""Whether draws fell as often as chance lets them: who writes a log could wait for good ones.

Each draw is right by itself; but a verifier that writes records until a draw suits it leaves a log whose draws, taken
together, can't be chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SIGMAS: Final = 6.0
SLACK: Final = 12.0
"""Beyond so many standard deviations and so many draws, chance is below 10⁻⁷ (Bernstein's inequality), however rare
what is drawn."""


@dataclass(slots=True)
class Chance:
    """How often something was drawn, and how often it should have been."""

    drawn: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, drawn: float, probability: float, draws: float = 1.0) -> None:
        """Take in draws of one probability.

        Args:
            drawn: how many of them fell on it.
            draws: how many there were.
        """
        self.drawn += drawn
        self.mean += draws * probability
        self.variance += draws * probability * (1.0 - probability)

    @property
    def odd(self) -> bool:
        """Whether it can't be chance."""
        return abs(self.drawn - self.mean) > SIGMAS * math.sqrt(max(0.0, self.variance)) + SLACK

    def __str__(self) -> str:
        return f"{self.mean:.0f} ± {math.sqrt(max(0.0, self.variance)):.0f}"
