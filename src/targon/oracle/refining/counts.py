"""How many passages were taken, and how many draws refused, by reason: what a service exports as metrics."""

from __future__ import annotations

from collections.abc import Mapping

from targon.oracle.refining.reasons import Reason


class Counts:
    """Since the process began. One thread counts; others may read."""

    def __init__(self) -> None:
        self.taken = 0
        """Passages that were taken."""
        self._refused = dict.fromkeys(Reason, 0)

    def refuse(self, reason: Reason) -> None:
        """Count a draw that gave no passage."""
        self._refused[reason] += 1

    @property
    def refused(self) -> Mapping[Reason, int]:
        """Draws that gave no passage, by reason; each reason is there."""
        return self._refused.copy()

    @property
    def draws(self) -> int:
        """All of them."""
        return self.taken + sum(self._refused.values())

    def since(self, before: Mapping[Reason, int]) -> Mapping[str, int]:
        """What was refused since ``refused`` was read; reasons for which nothing was are left out."""
        return {
            reason.value: count - before[reason]
            for reason, count in self._refused.items()
            if count > before[reason]
        }
