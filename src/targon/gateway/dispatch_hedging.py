"""When a prover is slow enough for another to be asked, and how often that may be."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

REMEMBERED = 256
"""First-token times of a model that are remembered."""
ENOUGH = 20
"""With fewer, nothing is known of a model's usual time."""
RECKONED_EVERY = 16
"""Times after which the percentile is reckoned anew."""
PERCENTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """When a second prover is asked."""

    floor_s: float = 0.5
    """Never before this, however fast a model's provers are."""
    factor: float = 1.5
    """Times the 95th percentile of the model's first-token times."""
    unknown_s: float = 5.0
    """Where too few of them were seen."""
    ceiling_s: float = 30.0
    """Always by then: provers that slow one another down must not put it off for ever."""
    share: float = 0.05
    """Of all orders: so that a network that is slow as a whole is not given twice the load."""
    burst: int = 10
    """Hedges at once, after a quiet time."""


class HedgeBudget:
    """A share of all orders may be hedged."""

    def __init__(self, hedging: Hedging) -> None:
        self._hedging = hedging
        self._left = float(hedging.burst)

    def earn(self) -> None:
        """An order came."""
        self._left = min(float(self._hedging.burst), self._left + self._hedging.share)

    def spend(self) -> bool:
        """Whether one more is allowed; it is counted then."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class FirstTokenTimes:
    """How long provers of each model take for their first token, those that were outrun too."""

    def __init__(self, hedging: Hedging) -> None:
        self._hedging = hedging
        self._times: dict[str, deque[float]] = {}
        self._patience: dict[str, float] = {}
        self._news: dict[str, int] = {}

    def saw(self, model: str, seconds: float) -> None:
        """A first token came so long after its request."""
        times = self._times.setdefault(model, deque(maxlen=REMEMBERED))
        times.append(seconds)
        news = self._news[model] = self._news.get(model, 0) + 1
        if len(times) >= ENOUGH and (model not in self._patience or news >= RECKONED_EVERY):
            self._news[model] = 0
            self._patience[model] = self._reckon(times)

    def patience_s(self, model: str) -> float:
        """Seconds after which another prover of the model is asked."""
        return self._patience.get(model, self._hedging.unknown_s)

    def _reckon(self, times: deque[float]) -> float:
        rank = min(len(times) - 1, int(PERCENTILE * len(times)))
        usual_s = sorted(times)[rank] * self._hedging.factor
        return min(self._hedging.ceiling_s, max(self._hedging.floor_s, usual_s))
