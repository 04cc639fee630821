"""The tiers, and the four rules by which a prover moves between them at an interval's end.

Source: DESIGN, "Tiers" (v1.1.1). All arithmetic is exact: 0.98 means 98/100, and 98 of 100 meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Final, Literal

from targon.protocol.profile import Profile

MAX_INCONCLUSIVE: Final = Fraction(1, 10)
"""Above this share of inconclusive outcomes among all sent, nobody is promoted."""


class Tier(IntEnum):
    """Eleven tiers, from the lowest to the highest."""

    BRONZE = 0
    SILVER = 1
    GOLD = 2
    PLATINUM = 3
    DIAMOND = 4
    EMERALD = 5
    RUBY = 6
    JADE = 7
    MASTER = 8
    GRANDMASTER = 9
    CHALLENGER = 10

    @property
    def label(self) -> str:
        """The name as people read it: ``Grandmaster``."""
        return self.name.capitalize()


@dataclass(frozen=True, slots=True)
class TierRule:
    """One row of the table. The minimum of total successes stands in the profile (``success_minima``)."""

    success_rate: Fraction
    """Share of an interval's attempts that must succeed."""
    request_limit: int
    """Most requests that a prover receives in one interval."""
    reward_factor: float
    similarity_threshold: float
    """Least similarity, 0 to 1, with which a request passes."""


TIERS: Final[Mapping[Tier, TierRule]] = MappingProxyType(
    {
        Tier.CHALLENGER: TierRule(Fraction("0.98"), 25_000, 1.000, 0.95),
        Tier.GRANDMASTER: TierRule(Fraction("0.92"), 22_500, 0.980, 0.92),
        Tier.MASTER: TierRule(Fraction("0.88"), 20_000, 0.960, 0.88),
        Tier.JADE: TierRule(Fraction("0.84"), 17_500, 0.940, 0.84),
        Tier.RUBY: TierRule(Fraction("0.82"), 15_000, 0.920, 0.82),
        Tier.EMERALD: TierRule(Fraction("0.80"), 12_500, 0.900, 0.80),
        Tier.DIAMOND: TierRule(Fraction("0.78"), 10_000, 0.888, 0.78),
        Tier.PLATINUM: TierRule(Fraction("0.76"), 7_500, 0.777, 0.76),
        Tier.GOLD: TierRule(Fraction("0.74"), 5_000, 0.666, 0.74),
        Tier.SILVER: TierRule(Fraction("0.72"), 1_000, 0.555, 0.72),
        Tier.BRONZE: TierRule(Fraction("0.70"), 500, 0.444, 0.70),
    }
)


@dataclass(frozen=True, slots=True)
class Record:
    """What moves one prover's tier.

    Raises:
        ValueError: unless 0 ≤ successes ≤ replies ≤ attempts, 0 ≤ inconclusive, successes ≤ total_successes
            and, where it fell, it fell from a tier above its own.
    """

    tier: Tier = Tier.BRONZE
    attempts: int = 0
    """Attempts that ended in ``pass`` or ``fail`` since the counters began; inconclusive ones are none."""
    successes: int = 0
    replies: int = 0
    """Attempts that got any reply, be it an error."""
    inconclusive: int = 0
    total_successes: int = 0
    """Successes ever, these included."""
    fallen_from: Tier | None = None
    """The tier from which an outage took it, while it may return there at once."""

    def __post_init__(self) -> None:
        ordered = 0 <= self.successes <= self.replies <= self.attempts
        fell_down = self.fallen_from is None or self.fallen_from > self.tier
        if not ordered or self.inconclusive < 0 or self.successes > self.total_successes or not fell_down:
            raise ValueError(
                f"got {self}, expected 0 <= successes <= replies <= attempts, inconclusive >= 0, "
                "successes <= total_successes and fallen_from > tier"
            )

    @property
    def rate(self) -> Fraction:
        """Successes among attempts; 0 where there were none."""
        return Fraction(self.successes, self.attempts) if self.attempts else Fraction(0)

    @property
    def is_down(self) -> bool:
        """Attempts were made, and none of them got any reply."""
        return self.attempts > 0 and self.replies == 0

    def meets(self, tier: Tier) -> bool:
        """Whether its rate is a tier's."""
        return self.rate >= TIERS[tier].success_rate


@dataclass(frozen=True, slots=True)
class Move:
    """What happened to a prover at an interval's end, and why in words."""

    kind: Literal["promoted", "relegated", "returned", "stayed"]
    before: Tier
    after: Tier
    why: str


def settle(record: Record, profile: Profile) -> tuple[Record, Move]:
    """What an interval's end makes of a prover: its record for the next interval, and the move.

    With fewer attempts than the profile asks for there is no move and the counters run on; otherwise they
    reset and one rule applies: return, else promotion, else relegation.
    """
    if record.attempts < profile.min_attempts:
        return record, _stayed(
            record,
            f"{record.attempts} attempts, and a move asks for {profile.min_attempts}: the counters run on",
        )
    move = _return(record) or _promotion(record, profile) or _relegation(record)
    move = move or _stayed(record, f"{_rate_in_words(record)}; {_what_is_missing(record, profile)}")
    after = Record(
        tier=move.after,
        total_successes=record.total_successes,
        fallen_from=_right_to_return(record, move),
    )
    return after, move


def _promotion(record: Record, profile: Profile) -> Move | None:
    """Promote one tier when the rate meets the next tier's and the total successes meet its minimum.

    Over 10% inconclusive: no promotion.
    """
    if record.tier is Tier.CHALLENGER or _too_inconclusive(record):
        return None
    above = Tier(record.tier + 1)
    if not record.meets(above) or record.total_successes < profile.success_minima[above]:
        return None
    return Move("promoted", record.tier, above, f"{_rate_in_words(record)}; {_asks(above, profile)}")


def _relegation(record: Record) -> Move | None:
    """Relegate one tier when the rate misses the current tier's."""
    if record.tier is Tier.BRONZE or record.meets(record.tier):
        return None
    down = "it was down; " if record.is_down else ""
    why = f"{down}{_rate_in_words(record)}; {record.tier.label} asks for {_percent(record.tier)}"
    return Move("relegated", record.tier, Tier(record.tier - 1), why)


def _return(record: Record) -> Move | None:
    """Return at once from an outage, to the highest tier held before it whose rate is met, minimum or not.

    At once is the first interval's end at which the rate meets a tier above the present one.
    """
    if record.fallen_from is None:
        return None
    held = (tier for tier in Tier if record.tier < tier <= record.fallen_from and record.meets(tier))
    back = max(held, default=None)
    if back is None:
        return None
    why = f"it answers again; {_rate_in_words(record)}; {back.label} asks for {_percent(back)}"
    return Move("returned", record.tier, back, why)


def _right_to_return(record: Record, move: Move) -> Tier | None:
    """Whence it may still return: it is earned by a relegation while down, and ends with the return.

    It also ends when the answers themselves (successes among replies) miss the present tier's rate: that is
    no outage. An interval in which the outage only ended, its silence apart, doesn't end it.
    """
    if move.kind == "returned":
        return None
    if record.is_down:
        return record.fallen_from or (record.tier if move.kind == "relegated" else None)
    answered_well = Fraction(record.successes, record.replies) >= TIERS[record.tier].success_rate
    return record.fallen_from if answered_well else None


def _too_inconclusive(record: Record) -> bool:
    sent = record.attempts + record.inconclusive
    return record.inconclusive > MAX_INCONCLUSIVE * sent


def _stayed(record: Record, why: str) -> Move:
    return Move("stayed", record.tier, record.tier, why)


def _rate_in_words(record: Record) -> str:
    return f"{record.successes} of {record.attempts} attempts succeeded"


def _percent(tier: Tier) -> str:
    return f"{int(TIERS[tier].success_rate * 100)}%"


def _asks(tier: Tier, profile: Profile) -> str:
    return f"{tier.label} asks for {_percent(tier)} and {profile.success_minima[tier]:,} successes in all"


def _what_is_missing(record: Record, profile: Profile) -> str:
    if not record.meets(record.tier):
        return f"{record.tier.label} asks for {_percent(record.tier)}, and there is no lower tier"
    if record.tier is Tier.CHALLENGER:
        return "there is no higher tier"
    above = Tier(record.tier + 1)
    if record.meets(above) and record.total_successes >= profile.success_minima[above]:
        return f"{record.inconclusive} more were inconclusive, over 10% of all sent: no promotion"
    return f"{_asks(above, profile)}, it has {record.total_successes:,}"
