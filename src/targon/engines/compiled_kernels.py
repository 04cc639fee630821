"""The compiled passes over one position's logits that replaying the sampler is made of.

Nothing here decides what rounding could turn: such a position is flagged, for the plain form to decide.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from targon.engines.compiled_noise import TILE, compiled, draw_words, fused, value_of
from targon.engines.compiled_races import find_rivals, race, race_few, rival_anywhere, set_rival, word_of
from targon.protocol.replay import TAIL_PROBABILITY

DOUBT = 1e-9
"""Share of a sum of weights within which it is not compared here; it is exact to about 1e-12."""
STEEP = 1e4
"""Largest logit / T whose weight is computed here: beyond, rounding of the logit itself would show."""
_SPAN = 32
"""Weights below 2^-32 of the best token's are no candidates of a cut here."""
_FIRST_SPAN = 10
"""Where the candidates are looked for first."""
_BINS = 4 * (_SPAN + 1)
"""Bins of weights, four to a factor of 2."""
FEW = 2048
"""More candidates than this race as a vocabulary with gaps, fewer one by one."""

_MAGIC = 1.5 * 2.0**52
"""Added to a float64 of modest size, it leaves the nearest integer in the low bits."""
_LOWEST = -1000.0
"""Powers of 2 below this count as this one: nothing."""
_P = tuple(math.log(2.0) ** n / math.factorial(n) for n in range(11))
"""Taylor coefficients of 2^f; for f in [-1/2, 1/2] they leave an error of 2e-13."""

_Draw = tuple[int, int, int, int]
"""Position, choice, and the low and high halves of the run key."""


@compiled
def replay_rows(
    logits: NDArray[np.float32],
    claimed: NDArray[np.int64],
    peaks: NDArray[np.int64],
    cuts: tuple[float, float, float, float, float, int],
    others: NDArray[np.float64],
    edges: NDArray[np.float64],
    reach: float,
    draw: _Draw,
    ids: NDArray[np.int64],
    words: NDArray[np.uint64],
    flags: NDArray[np.bool_],
    totals: NDArray[np.float64],
    tails: NDArray[np.float64],
    rivals: NDArray[np.uint32],
    claimed_rivals: NDArray[np.uint8],
) -> None:
    """Replay some positions.

    Args:
        logits: ``(positions, vocab) float32``.
        claimed, peaks: ``(positions,) int64``, the claimed tokens and the most likely ones.
        cuts: temperature, top-p, that narrower and wider by the slack, the slack in logits, top-k. (What
            other files set is no constant here: compiled code is kept, and wouldn't notice another value.)
        others: temperatures that are suspected.
        edges, reach: of leads, in logits.
        draw: of the first row.
        ids: out: ``(positions, 3)``, the best, the second-best (the best again if it is alone), the claimed.
        words: out: ``(positions, 3)``, their noise.
        flags: out: ``(positions, 4)``, whether the claimed token is among the candidates; whether it is in
            the tail; whether the plain form has to decide; whether the draw hangs on the cut.
        totals: out: ``(positions,)``, the sum of e^(logit - highest).
        tails: out: ``(positions,)``, the mass of the tail.
        rivals, claimed_rivals: in: without any; out: ``(positions,)``, the codes of
            :mod:`targon.protocol.suspicions`.
    """
    temperature, top_p, narrow_p, wide_p, slack, top_k = cuts
    position, choice, low, high = draw
    vocab = logits.shape[1]
    weights = np.empty(vocab, np.float64)
    masked = np.empty(0, np.float32)
    found = np.empty(vocab, np.int64)
    noise = np.empty(vocab, np.float64)
    for row in range(logits.shape[0]):
        values, claim, peak, at = logits[row], claimed[row], peaks[row], position + row
        top = np.float64(values[peak])  # numba's float() would leave it a float32
        ids[row, 0], ids[row, 1], ids[row, 2] = peak, peak, claim
        if not np.isfinite(top):
            continue
        totals[row] = total = weigh(values, top, 1.0, weights)
        flags[row, 0] = True
        if temperature == 0.0:
            ids[row, 1] = _runner_up(values, peak)
            continue
        if abs(top) / temperature > STEEP:
            flags[row, 2] = True
            continue
        if temperature != 1.0:
            total = weigh(values, top, 1.0 / temperature, weights)
        if 0 < top_k < vocab or top_p < 1.0:
            shares = (narrow_p, top_p, wide_p)
            order, counts, total, doubt = _cut(values, weights, total, top_k if top_k < vocab else 0, shares)
            kept = order[: counts[1]]
            last = kept[-1]
            own, least = values[claim], values[last]
            flags[row, 0] = own > least or (own == least and claim <= last)
            heavy, near = _heavy(weights[kept], TAIL_PROBABILITY * total, DOUBT * total)
            doubt |= near
            if kept.size <= FEW:
                best, second, close = race_few(values, kept, noise, temperature, at, choice, low, high)
                near = find_rivals(
                    values,
                    kept,
                    noise,
                    kept.size,
                    best,
                    claim,
                    others,
                    edges,
                    rivals[row:],
                    claimed_rivals[row:],
                )
            else:
                if not masked.size:
                    masked = np.empty(vocab, np.float32)
                masked[:] = np.float32(-np.inf)
                for token in kept:
                    masked[token] = values[token]
                best, second, close, count = race(
                    masked, found, noise, temperature, reach, peak, at, choice, low, high
                )
                near = find_rivals(
                    values,
                    found,
                    noise,
                    count,
                    best,
                    claim,
                    others,
                    edges,
                    rivals[row:],
                    claimed_rivals[row:],
                )
            if kept.size < vocab:
                rival, lead, tied = rival_anywhere(
                    values, temperature, edges[-1], best, at, choice, low, high
                )
                near |= tied | set_rival(
                    others.size, rival, lead, claim, edges, rivals[row:], claimed_rivals[row:]
                )
            doubt |= near
            if not doubt:
                roof = _next_below(values, weights, order, counts[0]) + slack
                floor = values[order[counts[2] - 1]] - slack
                flags[row, 3] = values[best] <= roof
                if not flags[row, 3]:
                    value = value_of(values[best], temperature, word_of(best, at, choice, low, high))
                    value -= slack / temperature
                    beyond = _most_beyond(values, weights, last, floor, temperature, at, choice, low, high)
                    flags[row, 3] = beyond > value
                    doubt |= abs(beyond - value) <= 1e-9 + 1e-12 * abs(value)
        else:
            heavy, doubt = _heavy(weights, TAIL_PROBABILITY * total, DOUBT * total)
            best, second, close, count = race(
                values, found, noise, temperature, reach, peak, at, choice, low, high
            )
            doubt |= find_rivals(
                values, found, noise, count, best, claim, others, edges, rivals[row:], claimed_rivals[row:]
            )
        ids[row, 0], ids[row, 1] = best, second
        flags[row, 1] = not flags[row, 0] or weights[claim] < TAIL_PROBABILITY * total
        flags[row, 2] = doubt or close
        tails[row] = max(0.0, 1.0 - heavy / total)
        for place in range(3):
            words[row, place] = word_of(ids[row, place], at, choice, low, high)


@compiled
def _runner_up(values: NDArray[np.float32], peak: int) -> int:
    second = peak
    for token in range(values.size):
        if token != peak and (second == peak or values[token] > values[second]):
            second = token
    return second


@fused
def weigh(values: NDArray[np.float32], top: float, inverse: float, weights: NDArray[np.float64]) -> float:
    """``weights = e^((values - top) * inverse)``; returns their sum."""
    scale = inverse / math.log(2.0)
    power = np.empty(TILE, np.float64)
    whole = np.empty(TILE, np.float64)
    whole_bits = whole.view(np.int64)
    sums = np.zeros(TILE, np.float64)
    for start in range(0, values.size, TILE):
        tile, out = values[start : start + TILE], weights[start : start + TILE]
        for i in range(tile.size):
            exponent = (np.float64(tile[i]) - top) * scale
            power[i] = max(_LOWEST, exponent)
        for i in range(tile.size):
            whole[i] = power[i] + _MAGIC
            power[i] -= whole[i] - _MAGIC
        for i in range(tile.size):
            whole_bits[i] = (whole_bits[i] + 1023) << 52
        for i in range(tile.size):
            f = power[i]
            series = _P[7] + f * (_P[8] + f * (_P[9] + f * _P[10]))
            series = _P[3] + f * (_P[4] + f * (_P[5] + f * (_P[6] + f * series)))
            weight = (_P[0] + f * (_P[1] + f * (_P[2] + f * series))) * whole[i]
            out[i] = weight
            sums[i] += weight
    return float(sums.sum())


@compiled
def _heavy(weights: NDArray[np.float64], least: float, doubt: float) -> tuple[float, bool]:
    """The sum of the weights that are at least ``least``, and whether one is too close to it to tell."""
    total, near = 0.0, 0
    for start in range(0, weights.size, TILE):
        tile = weights[start : start + TILE]
        if _reaching(tile, least - doubt) == 0:
            continue
        for i in range(tile.size):
            if tile[i] >= least:
                total += tile[i]
            near += abs(tile[i] - least) <= doubt
    return total, near > 0


@compiled
def _reaching(weights: NDArray[np.float64], least: float) -> int:
    """How many weights are at least so much."""
    count = 0
    for i in range(weights.size):
        count += weights[i] >= least
    return count


@compiled
def _cut(
    values: NDArray[np.float32],
    weights: NDArray[np.float64],
    total: float,
    top_k: int,
    shares: tuple[float, float, float],
) -> tuple[NDArray[np.int64], NDArray[np.int64], float, bool]:
    """Tokens in order of (-value, id); how many of them each of some increasing values of top-p keeps; the sum
    of the weights that the second of them keeps; whether the plain form has to decide. ``top_k`` 0: none."""
    counts = np.ones(3, np.int64)
    ids = likeliest(weights, top_k, shares[2] * total * (1.0 + 2.0 * DOUBT))
    order = ids[np.argsort(-values[ids], kind="mergesort")]
    size = order.size
    if top_k:
        if size < top_k:
            return order, counts, total, True
        size = top_k
        total = float(weights[order[:top_k]].sum())
    if shares[1] == 1.0:
        counts[:] = size
        return order, counts, total, False
    slack, running, place, doubt, held = DOUBT * total, 0.0, 0, False, 0.0
    for goal in range(3):
        while running <= shares[goal] * total and place < size:
            doubt |= abs(running - shares[goal] * total) <= slack
            running += weights[order[place]]
            place += 1
        doubt |= running - shares[goal] * total <= slack
        counts[goal] = place
        if goal == 1:
            held = running
    return order, counts, held, doubt


@compiled
def _next_below(
    values: NDArray[np.float32], weights: NDArray[np.float64], order: NDArray[np.int64], count: int
) -> float:
    """The value of the token that comes next after the first ``count`` of an order; -inf if there is none."""
    if count < order.size:
        return float(values[order[count]])
    best = -np.inf
    for token in order:
        weights[token] = -weights[token]
    for token in range(values.size):
        if weights[token] >= 0.0:
            best = max(best, float(values[token]))
    for token in order:
        weights[token] = -weights[token]
    return best


@compiled
def _most_beyond(
    values: NDArray[np.float32],
    weights: NDArray[np.float64],
    last: int,
    floor: float,
    temperature: float,
    position: int,
    choice: int,
    low: int,
    high: int,
) -> float:
    """The highest s + g of the tokens that come after ``last`` and whose value is at least ``floor``."""
    words = np.empty((4, 1), np.uint64)
    most = -np.inf
    least = weights[last] * math.exp((floor - values[last]) / temperature) * (1.0 - 1e-6)
    for token in _above(weights, least):
        after = values[token] < values[last] or (values[token] == values[last] and token > last)
        if after and values[token] >= floor:
            draw_words(words, token // 4, position, choice, low, high)
            most = max(most, value_of(values[token], temperature, words[token % 4, 0]))
    return most


@compiled
def likeliest(weights: NDArray[np.float64], count: int, mass: float) -> NDArray[np.int64]:
    """The tokens, in order of id, of the highest bins of weights that hold at least ``count`` tokens, if that
    is not 0, and else at least ``mass``; of all bins, if they don't."""
    bits = weights.view(np.int64)
    for span in (_FIRST_SPAN, _SPAN):
        heavy = _above(weights, 2.0**-span)
        held = np.zeros(_BINS, np.int64)
        weighed = np.zeros(_BINS, np.float64)
        for token in heavy:
            place = (1023 * 4 + 3) - (bits[token] >> 50)
            held[place] += 1
            weighed[place] += weights[token]
        last, number, sum_ = -1, 0, 0.0
        while last < _BINS - 1 and (number < count if count else sum_ < mass):
            last += 1
            number += held[last]
            sum_ += weighed[last]
        if number >= count if count else sum_ >= mass:
            break
    ids = np.empty(number, np.int64)
    filled = 0
    for token in heavy:
        if (1023 * 4 + 3) - (bits[token] >> 50) <= last:
            ids[filled] = token
            filled += 1
    return ids


@compiled
def _above(weights: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """The tokens that weigh at least so much, in order of id."""
    ids = np.empty(weights.size, np.int64)
    filled = 0
    for start in range(0, weights.size, TILE):
        tile = weights[start : start + TILE]
        if _reaching(tile, least) == 0:
            continue
        for i in range(tile.size):
            ids[filled] = start + i
            filled += tile[i] >= least
    return ids[:filled]
