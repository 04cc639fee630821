"""The constants of the economy that a network may shorten to be tried out, under a name that its log records.

``STANDARD`` is the network's own. ``DEMO`` shortens the interval, the minima and the probation, so that a
promotion can be seen in a minute; nothing else differs.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from targon.protocol.messages import Message
from targon.protocol.schedule import INTERVAL_BLOCKS


class Profile(Message):
    """Lengths, minima and rates. Tiers are listed from the lowest (Bronze) to the highest (Challenger)."""

    name: Annotated[str, Field(min_length=1, max_length=32)]
    interval_blocks: Annotated[int, Field(ge=1)] = INTERVAL_BLOCKS
    min_attempts: Annotated[int, Field(ge=1)] = 20
    """Fewer attempts than this in an interval: no move, and the counters run on."""
    success_minima: Annotated[tuple[int, ...], Field(min_length=11, max_length=11)] = (
        0, 250, 500, 750, 1_000, 1_250, 1_500, 1_700, 1_850, 2_000, 4_000,
    )  # fmt: skip
    """Total successes that each tier asks for."""
    probation_tokens: Annotated[int, Field(ge=0)] = 5_000
    """A new hotkey has weight 0 until this many of its tokens were verified."""
    ema_alpha: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Weight of the newest block in a prover's score."""


STANDARD = Profile(name="standard")

DEMO = Profile(
    name="demo",
    interval_blocks=8,
    min_attempts=2,
    success_minima=(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20),
    probation_tokens=64,
)

PROFILES = {profile.name: profile for profile in (STANDARD, DEMO)}
