"""Where a cut falls, and how much hangs on that.

Two honest engines whose logits differ by a hair may disagree about the last candidate that top-k or top-p
keeps. Then their draws differ however far the drawn token leads, and that says nothing about the prover. So
a position *hangs on the cut* if, with the cut a little wider or a little narrower, another token is drawn:

1. the odds of top-p are moved by e^±(``CUT_SLACK`` / T), as they are if logits are off by that much;
2. a token whose logit is within ``CUT_SLACK`` of the last kept one may be kept as well, and one whose logit
   is within ``CUT_SLACK`` of the first dropped one may be dropped;
3. a token that may be kept would be drawn if it comes within ``CUT_SLACK`` of the best.

That is known before the claimed token is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from targon.protocol.messages import Sampling

CUT_SLACK: Final = 0.3
"""In logits: what honest engines hardly ever differ by; where they do, it is in the calibration."""

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


def slackened(sampling: Sampling) -> tuple[float, float]:
    """Top-p with its odds lowered and raised by the slack; 1.0 stays, and so does all at T = 0."""
    top_p = sampling.top_p
    if top_p >= 1.0 or sampling.temperature == 0.0:
        return top_p, top_p
    odds, slack = math.log(top_p) - math.log1p(-top_p), CUT_SLACK / sampling.temperature
    return 1.0 / (1.0 + math.exp(slack - odds)), 1.0 / (1.0 + math.exp(-slack - odds))


def hangs_on_cut(
    logits: Floats,
    kept: Ids,
    best: tuple[int, float],
    sampling: Sampling,
    noise: Callable[[Ids], Floats | float],
    unseen: float | None,
) -> bool:
    """Whether another cut, a hair away, draws another token.

    Args:
        logits: ``(n,) float64``, logits or log-probabilities, of the whole vocabulary or its most likely tokens.
        kept: indices of the candidates.
        best: index and value (s + g) of the drawn token.
        noise: g of some indices.
        unseen: weight of the tokens that ``logits`` lacks, where the most likely one weighs 1; None: none lack.
    """
    if sampling.temperature == 0.0 or (sampling.top_p == 1.0 and not 0 < sampling.top_k < logits.size):
        return False
    order = np.argsort(-logits, kind="stable")
    size = min(sampling.top_k or logits.size, logits.size)
    weights = np.exp(logits[order[:size]] / sampling.temperature - logits[order[0]] / sampling.temperature)
    running = np.cumsum(weights)
    total = float(running[-1]) + (unseen or 0.0 if size == logits.size else 0.0)
    narrow, wide = (
        min(int(np.searchsorted(running, share * total)) + 1, size) for share in slackened(sampling)
    )
    if unseen is not None and wide == logits.size:
        return True  # the cut may fall among tokens that were not seen
    place, value = best
    if narrow < logits.size and logits[place] <= logits[order[narrow]] + CUT_SLACK:
        return True
    near = np.flatnonzero(logits >= logits[order[wide - 1]] - CUT_SLACK)
    extras = np.setdiff1d(near, kept, assume_unique=True)
    reach = value - CUT_SLACK / sampling.temperature  # kept, and a hair more likely, it wins
    return bool(np.any(logits[extras] / sampling.temperature + noise(extras) > reach))
