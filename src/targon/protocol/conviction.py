"""What a conviction is, what it does, and how a convicted prover comes back.

1. A prover is convicted when the evidence against it reaches ``CONVICTION``: an honest one ever is with
   probability at most ``ALPHA`` (Ville's inequality), counted from where its evidence began.
2. It falls to Bronze, all its counters and its total successes are 0, its score is 0, and none of its
   tokens count as verified any more: so it has weight 0, as a new hotkey has.
3. Its evidence begins anew, at 1: what convicted it isn't held against it twice.
4. It still receives work, and recovers as a new hotkey does: when as many of its tokens were verified, with
   evidence, as the probation asks for. A second conviction before that starts the count again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from targon.protocol.tiers import Record

ALPHA: Final = 1e-4
"""Probability, at most, that an honest prover is ever convicted."""

CONVICTION: Final = 1.0 / ALPHA
"""The value of the evidence that convicts."""


LOG_CONVICTION: Final = math.log(CONVICTION)
"""Its natural logarithm."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a conviction leaves of a prover's standing."""

    record: Record
    score: float
    verified_tokens: int


def convicts(log_e: float) -> bool:
    """Whether evidence, as its natural logarithm, convicts. Something that is no number doesn't."""
    return log_e >= LOG_CONVICTION


def sentence() -> Sentence:
    """What is left after a conviction, whatever there was before."""
    return Sentence(record=Record(), score=0.0, verified_tokens=0)
