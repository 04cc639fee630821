"""Which inferences are audited: a random sample whose rate depends on tier and evidence, and is never zero.

Whether an inference is audited follows from the interval's secret, its attempt's number and its prover (a draw that
nobody can foresee) and from the prover's standing when the attempt was logged (the rate). Both are fixed before the
answer is seen. Provers of whom little is known are looked at more closely, and so are those whose evidence rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from targon.protocol.tiers import Tier

AUDIT_RATES: Final[Mapping[Tier, float]] = MappingProxyType(
    {
        Tier.CHALLENGER: 0.02,
        Tier.GRANDMASTER: 0.03,
        Tier.MASTER: 0.04,
        Tier.JADE: 0.05,
        Tier.RUBY: 0.06,
        Tier.EMERALD: 0.07,
        Tier.DIAMOND: 0.08,
        Tier.PLATINUM: 0.10,
        Tier.GOLD: 0.13,
        Tier.SILVER: 0.16,
        Tier.BRONZE: 0.20,
    }
)
"""Share of a prover's inferences that are audited while nothing speaks against it."""

PROBATION_RATE: Final = 0.50
"""The least share on probation: its tokens have to be verified anyway."""

OWN_PER_INTERVAL: Final = 4
"""Where users ask little, the verifier sends inferences of its own: as many in an interval, on average, as leave each
prover with about this many audited ones."""

OWN_LATEST_BLOCKS: Final = 30
"""An inference of the verifier's own names the block that drew it, or one of fewer than so many blocks after it."""


def audit_rate(tier: Tier, *, on_probation: bool, log_e: float) -> float:
    """The share of a prover's inferences that are audited, in (0, 1].

    ``min(1, r · (1 + max(0, ln e)))``, where r is the tier's rate, or at least ``PROBATION_RATE`` on probation.

    Args:
        log_e: natural logarithm of the evidence against it, as of its newest verified completion; 0 before any.
    """
    rate = max(AUDIT_RATES[tier], PROBATION_RATE) if on_probation else AUDIT_RATES[tier]
    return min(1.0, rate * (1.0 + max(0.0, log_e)))


def is_drawn(draw: int, rate: float) -> bool:
    """Whether a 64-bit draw falls below a rate: ``draw < rate · 2⁶⁴``; the product a float64, the comparison exact."""
    return draw < rate * 18_446_744_073_709_551_616.0


def own_inference_due(draw: int, *, audits: int, interval_blocks: int) -> bool:
    """Whether a block is one in which the verifier sends a prover an inference of its own.

    Args:
        draw: 64 bits, :func:`targon.protocol.draws.own_inference_draw`.
        audits: how many of the prover's inferences were drawn for an audit in this interval already.
    """
    return audits < OWN_PER_INTERVAL and is_drawn(draw, min(1.0, OWN_PER_INTERVAL / interval_blocks))
