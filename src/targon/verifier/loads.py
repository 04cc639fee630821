"""How much each prover has to do for us now, and how much it seems to take.

A prover says how many requests it works on at once. How many we let it have is a *window* that never exceeds that: it
grows by one for each window of answers, and shrinks by half when the prover refuses, breaks off, or keeps a user
waiting so long that another is asked (additive increase, multiplicative decrease, as in TCP). A prover that fails
several times in a row rests: it is asked again after a while, each time a longer one.

Beside its word a prover has limits that it doesn't report: requests in a second, callers with more stake. That it
refuses for these is excused a number of times, which only answers bring back: else it could choose its work by
refusing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from targon.protocol.primitives import Hotkey

HOLD_S: Final = 1.0
"""A window shrinks at most once in so many seconds: what fails together has one cause."""
PATIENCE: Final = 2
"""Failures in a row after which a prover rests."""
MAX_REST_S: Final = 60.0
EXCUSES: Final = 32
"""Refusals for a limit of its own that a prover is excused before it has answered anything: those that are under way
together when the limit is met."""
EXCUSES_EARNED: Final = 0.05
"""For each answer: who refuses more than a twentieth of its work is charged."""
LIMITED_REST_S: Final = 1.0
"""Least rest of who is excused: a refusal makes room at once, and what comes next would be refused as well."""


@dataclass(slots=True)
class _Load:
    reported: int
    """How many requests it takes at once, by its own word."""
    window: float
    in_flight: int = 0
    excuses: float = float(EXCUSES)
    failures: int = 0
    """In a row, those within ``HOLD_S`` counted as one."""
    shrunk_s: float = field(default=float("-inf"))
    rests_until_s: float = field(default=float("-inf"))


class Loads:
    """The windows of all provers. Kept in memory alone: they are found anew after a restart."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._loads: dict[Hotkey, _Load] = {}

    def report(self, capacities: Mapping[Hotkey, int]) -> None:
        """What provers say that they take at once, of all who serve."""
        for prover, capacity in capacities.items():
            load = self._of(prover)
            if capacity != load.reported:
                # one that was full at its old limit may go on to its new one
                load.window = float(capacity) if load.window >= load.reported else min(load.window, capacity)
                load.reported = capacity
        for prover, load in list(self._loads.items()):
            if prover in capacities:
                continue
            load.reported, load.window = 0, 0.0
            if not load.in_flight and load.excuses >= EXCUSES:  # who comes back finds those that it has used
                del self._loads[prover]

    def window(self, prover: Hotkey) -> int:
        """How many requests it may have at once."""
        load = self._loads.get(prover)
        return 0 if load is None else int(load.window)

    def has_room(self, prover: Hotkey) -> bool:
        """Whether it may have one more now."""
        load = self._loads.get(prover)
        if load is None or load.in_flight >= int(load.window):
            return False
        return self._monotonic_s() >= load.rests_until_s

    def overfilled(self, prover: Hotkey) -> bool:
        """Whether it has more to do for us than it says that it takes."""
        load = self._of(prover)
        return load.in_flight > load.reported

    def excused(self, prover: Hotkey, *, limited: bool, retry_after_s: float | None = None) -> bool:
        """Whether a refusal for having too much to do is nobody's fault: the prover had more than it says that it
        takes, or names a limit of its own, and has not done so too often. Its window shrinks then.

        Args:
            limited: whether it names a limit that it doesn't report.
            retry_after_s: when it says to try again.
        """
        load = self._of(prover)
        if not self.overfilled(prover):
            if not limited or load.excuses < 1.0:
                return False
            load.excuses -= 1.0
            rest_s = min(MAX_REST_S, max(LIMITED_REST_S, retry_after_s or 0.0))
            load.rests_until_s = max(load.rests_until_s, self._monotonic_s() + rest_s)
        self._shrink(load)
        return True

    @contextmanager
    def sending(self, prover: Hotkey) -> Iterator[None]:
        """While a challenge is under way."""
        self.begin(prover)
        try:
            yield
        finally:
            self.end(prover)

    def begin(self, prover: Hotkey) -> None:
        self._of(prover).in_flight += 1

    def end(self, prover: Hotkey) -> None:
        self._of(prover).in_flight -= 1

    def answered(self, prover: Hotkey) -> None:
        """It gave a whole answer: the window grows."""
        load = self._of(prover)
        load.failures = 0
        load.excuses = min(float(EXCUSES), load.excuses + EXCUSES_EARNED)
        load.window = min(float(load.reported), load.window + 1.0 / max(1.0, load.window))

    def slow(self, prover: Hotkey) -> None:
        """It refused for having too much to do, or was too slow: the window shrinks."""
        self._shrink(self._of(prover))

    def failed(self, prover: Hotkey) -> None:
        """It gave no answer, or a wrong one."""
        load = self._of(prover)
        if self._shrink(load):
            load.failures += 1
            if load.failures >= PATIENCE:
                load.rests_until_s = self._monotonic_s() + min(MAX_REST_S, 2.0 ** (load.failures - PATIENCE))

    def _shrink(self, load: _Load) -> bool:
        now_s = self._monotonic_s()
        if now_s < load.shrunk_s + HOLD_S:
            return False
        load.shrunk_s = now_s
        load.window = min(load.window, max(1.0, load.window / 2.0))
        return True

    def _of(self, prover: Hotkey) -> _Load:
        return self._loads.setdefault(prover, _Load(0, 0.0))
