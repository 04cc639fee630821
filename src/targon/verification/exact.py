"""Token-for-token equality with what the reference engine would have generated.

Nothing is generated for it. The sampler is replayed over the claimed tokens: as long as they are what it
draws, they are what the reference engine would have generated, token by token, at the cost of one prefill.

Equal tokens are proof of an honest answer. Unequal tokens are a failed challenge, but prove nothing about
intent: an honest engine in another number format differs from the reference at about one position in fifty,
always by a hair (the margin says by how much).
"""

from __future__ import annotations

import numpy as np

from targon.verification.divergence import Divergence
from targon.verification.verdict import Verdict, failed

METHOD = "exact"


def exact_verdict(divergence: Divergence) -> Verdict:
    """Pass if every claimed token is the replayed sampler's choice.

    The similarity is the share of positions where it is. The evidence of a failure: ``position`` (the first
    that differs), ``claimed`` and ``expected`` (token ids there), ``margin`` (by how much the claimed one
    missed), ``mismatches`` (how many positions differ).
    """
    if divergence.settled is not None:
        return divergence.settled
    replay, count = divergence.replay, divergence.token_ids.size
    wrong = np.flatnonzero(replay.margins > 0.0)
    if not wrong.size:
        return Verdict(
            "pass", METHOD, 1.0, f"all {count} tokens are what the reference engine draws", {}, count
        )
    first = int(wrong[0])
    claimed, expected = int(divergence.token_ids[first]), int(replay.best_ids[first])
    margin = float(replay.margins[first])
    return failed(
        METHOD,
        f"{wrong.size} of {count} tokens are not what the reference engine draws, by "
        f"{float(replay.margins[wrong].mean()):.2f} on average; the first is token {first}: got {claimed}, "
        f"expected {expected} (by {margin:.2f})",
        score=divergence.agreement,
        tokens=count,
        position=first,
        claimed=claimed,
        expected=expected,
        margin=margin,
        mismatches=int(wrong.size),
    )
