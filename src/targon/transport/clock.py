"""The clocks of this room, in one place, so that tests can turn them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks: one that the world agrees on, and one that only ever goes forward."""

    now_ns: Callable[[], int] = time.time_ns
    """Nanoseconds since 1970-01-01 UTC: for nonces."""
    monotonic_s: Callable[[], float] = time.monotonic
    """Seconds since some moment: for rates and durations."""
