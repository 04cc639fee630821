"""Drawing after a cut, compiled: the candidates are found without sorting the rest, and only they draw noise.

As in :mod:`targon.engines.compiled_sampler`, what rounding could turn is left to
:func:`targon.protocol.sampler.choose`: where the cut falls, if a running sum comes near its goal, and who
wins, if the race is close.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from targon.engines.compiled_kernels import DOUBT, FEW, STEEP, likeliest, weigh
from targon.engines.compiled_noise import compiled
from targon.engines.compiled_races import race, race_few


@compiled
def race_after_cut(
    values: NDArray[np.float32],
    peak: int,
    temperature: float,
    top_k: int,
    top_p: float,
    position: int,
    choice: int,
    low: int,
    high: int,
) -> tuple[int, bool]:
    """The best ``s + g`` of the candidates that top-k and top-p leave.

    Args:
        values: ``(vocab,) float32``, logits, the highest of them finite and at ``peak``.
        temperature: above 0.
        top_k: 0, or as many as the vocabulary has: all.
        top_p: at most 1.0.
        position, choice, low, high: of the noise.

    Returns:
        The token, and whether the plain form has to decide instead.
    """
    top = np.float64(values[peak])
    if abs(top) / temperature > STEEP:
        return peak, True
    weights = np.empty(values.size, np.float64)
    total = weigh(values, top, 1.0 / temperature, weights)
    kept, doubt = _keep(values, weights, total, top_k if top_k < values.size else 0, top_p)
    if doubt or kept.size == 1:
        return kept[0], doubt
    if kept.size <= FEW:
        best, _, close = race_few(values, kept, np.empty(kept.size), temperature, position, choice, low, high)
        return best, close
    masked = np.full(values.size, np.float32(-np.inf))
    for token in kept:
        masked[token] = values[token]
    found, noise = np.empty(values.size, np.int64), np.empty(values.size)
    best, _, close, _ = race(masked, found, noise, temperature, 0.0, peak, position, choice, low, high)
    return best, close


@compiled
def _keep(
    values: NDArray[np.float32], weights: NDArray[np.float64], total: float, top_k: int, top_p: float
) -> tuple[NDArray[np.int64], bool]:
    """The candidates, and whether rounding could make them others. Only the tokens about as likely as the last
    candidate are put in order, unless there are both cuts."""
    ids = likeliest(weights, top_k, top_p * total * (1.0 + 2.0 * DOUBT))
    if ids.size == 0 or ids.size < top_k:
        return np.zeros(1, np.int64), True
    bits = weights.view(np.int64)
    least = bits[ids[0]]
    for token in ids:
        least = min(least, bits[token])
    edge = 1 << 62 if top_k and top_p < 1.0 else ((least >> 50) + 1) << 50  # likeliest's bins
    kept = np.empty(ids.size, np.int64)
    last = np.empty(ids.size, np.int64)
    sure = unsure = 0
    running = 0.0
    for token in ids:
        if bits[token] >= edge:
            kept[sure] = token
            running += weights[token]
            sure += 1
        else:
            last[unsure] = token
            unsure += 1
    last = last[:unsure]
    last = last[np.argsort(-values[last], kind="mergesort")]
    if top_k:
        last = last[: top_k - sure]
        kept[sure : sure + last.size] = last
        if top_p == 1.0:
            return kept[:top_k], False
        total = float(weights[last].sum())
    goal = top_p * total
    if running >= goal - DOUBT * total:
        return kept[:1], True
    for token in last:
        kept[sure] = token
        sure += 1
        running += weights[token]
        if abs(running - goal) <= DOUBT * total:
            return kept[:1], True
        if running > goal:
            return kept[:sure], False
    return kept[:1], True
