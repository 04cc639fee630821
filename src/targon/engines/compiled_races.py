"""The compiled races for one position's token: who has the most ``s + g``, and who would, sampled otherwise.

A race says where rounding could turn its result: such a position is flagged, for the plain form to decide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from targon.engines.compiled_noise import BLOCKS, TILE, compiled, draw_words, tile_bounds, value_of
from targon.protocol.replay import MARGIN_CLIP
from targon.protocol.suspicions import NO_RIVAL


@compiled
def word_of(token: int, position: int, choice: int, low: int, high: int) -> int:
    words = np.empty((4, 1), np.uint64)
    draw_words(words, token // 4, position, choice, low, high)
    return int(words[token % 4, 0])


@compiled
def _close(value: float, second: float, third: float) -> bool:
    """Whether the order of the best three could be another with another logarithm."""
    tolerance = 1e-9 + 1e-12 * abs(value)
    if value - second > MARGIN_CLIP + tolerance:
        return False
    return value - second <= tolerance or second - third <= tolerance


@compiled
def race_few(
    values: NDArray[np.float32],
    kept: NDArray[np.int64],
    noise: NDArray[np.float64],
    temperature: float,
    position: int,
    choice: int,
    low: int,
    high: int,
) -> tuple[int, int, bool]:
    """The best token of a few, the second-best (the best again if it is alone), and :func:`_close`.

    Args:
        noise: out: that of each of ``kept``.
    """
    best = second_id = kept[0]
    value = second = third = -np.inf
    for place, token in enumerate(kept):
        noise[place] = value_of(0.0, 1.0, word_of(token, position, choice, low, high))
        reached = np.float64(values[token]) / temperature + noise[place]
        if reached > value:
            third, second, value = second, value, reached
            second_id, best = best, token
        elif reached > second:
            third, second, second_id = second, reached, token
        elif reached > third:
            third = reached
    if kept.size == 1:
        return best, best, False
    return best, second_id, _close(value, second, third)


@compiled
def race(
    values: NDArray[np.float32],
    found: NDArray[np.int64],
    noise: NDArray[np.float64],
    temperature: float,
    reach: float,
    peak: int,
    position: int,
    choice: int,
    low: int,
    high: int,
) -> tuple[int, int, bool, int]:
    """The best token of a vocabulary, the second-best (unless its gap exceeds the clip: then any), and
    :func:`_close`.

    Args:
        reach: in logits.
        found: out: tokens, and all of those that miss the best value by no more than that.
        noise: out: theirs.

    Returns:
        The best, the second-best, whether it is close, and how many were found.
    """
    words = np.empty((4, BLOCKS), np.uint64)
    bound = np.empty((4, BLOCKS), np.float64)
    reach /= temperature

    best = second_id = found[0] = peak
    noise[0] = value_of(0.0, 1.0, word_of(peak, position, choice, low, high))
    value = np.float64(values[peak]) / temperature + noise[0]
    second = third = -np.inf
    count = 1

    for start in range(0, values.size, TILE):
        draw_words(words, start // 4, position, choice, low, high)
        floor = min(max(second, value - MARGIN_CLIP - 1.0), value - reach)
        floor -= 1e-8 + 1e-11 * abs(value)
        if tile_bounds(values, start, 1.0 / temperature, words, floor, bound) == 0:
            continue
        for lane in range(4):
            for i in range(BLOCKS):
                token = start + 4 * i + lane
                if bound[lane, i] >= floor and token != peak:
                    found[count] = token
                    noise[count] = value_of(0.0, 1.0, words[lane, i])
                    reached = np.float64(values[token]) / temperature + noise[count]
                    count += 1
                    if reached > value:
                        third, second, value = second, value, reached
                        second_id, best = best, token
                    elif reached > second:
                        third, second, second_id = second, reached, token
                    elif reached > third:
                        third = reached
    close = second > -np.inf and _close(value, second, third)
    return best, second_id, close, count


@compiled
def rival_anywhere(
    values: NDArray[np.float32],
    temperature: float,
    farthest: float,
    best: int,
    position: int,
    choice: int,
    low: int,
    high: int,
) -> tuple[int, float, bool]:
    """Of a whole vocabulary, the rival of a token within so many logits and its lead, and whether rounding could
    make it another; token -1 for none."""
    words = np.empty((4, BLOCKS), np.uint64)
    bound = np.empty((4, BLOCKS), np.float64)
    rival = -1
    value = value_of(values[best], temperature, word_of(best, position, choice, low, high))
    floor = value - farthest / temperature
    floor -= 1e-8 + 1e-11 * abs(value)
    first = second = -np.inf
    for start in range(0, values.size, TILE):
        draw_words(words, start // 4, position, choice, low, high)
        if tile_bounds(values, start, 1.0 / temperature, words, max(floor, second), bound) == 0:
            continue
        for lane in range(4):
            for i in range(BLOCKS):
                token = start + 4 * i + lane
                if bound[lane, i] >= floor and token != best:
                    reached = value_of(values[token], temperature, words[lane, i])
                    if reached > first:
                        rival, first, second = token, reached, first
                    elif reached > second:
                        second = reached
    return rival, (value - first) * temperature, _close(first, second, -np.inf)


@compiled
def find_rivals(
    values: NDArray[np.float32],
    ids: NDArray[np.int64],
    noise: NDArray[np.float64],
    count: int,
    best: int,
    claim: int,
    others: NDArray[np.float64],
    edges: NDArray[np.float64],
    rivals: NDArray[np.uint32],
    claimed_rivals: NDArray[np.uint8],
) -> bool:
    """The rival of a token among the first ``count`` at each of some temperatures (0: not looked for), into the
    first of ``rivals`` and ``claimed_rivals``; returns whether rounding could make one of them another."""
    doubt = False
    for place in range(others.size):
        temperature = others[place]
        if temperature == 0.0:
            continue
        rival, mine, first, second = -1, -np.inf, -np.inf, -np.inf
        for at in range(count):
            reached = np.float64(values[ids[at]]) / temperature + noise[at]
            if ids[at] == best:
                mine = reached
            elif reached > first:
                rival, first, second = ids[at], reached, first
            elif reached > second:
                second = reached
        lead = (mine - first) * temperature
        if rival >= 0 and lead < edges[-1] + 1e-6:
            doubt |= _close(first, second, -np.inf)
            doubt |= set_rival(place, rival, lead, claim, edges, rivals, claimed_rivals)
    return doubt


@compiled
def set_rival(
    place: int,
    rival: int,
    lead: float,
    claim: int,
    edges: NDArray[np.float64],
    rivals: NDArray[np.uint32],
    claimed_rivals: NDArray[np.uint8],
) -> bool:
    """Write down one suspicion's rival; returns whether its lead is too close to an edge to tell its class."""
    if rival < 0:
        return False
    doubt, above = False, 0
    for edge in edges:
        doubt |= abs(lead - edge) <= 1e-9
        above += lead >= edge
    if above < edges.size:
        rivals[0] ^= np.uint32((NO_RIVAL ^ above) << (4 * place))
        if rival == claim:
            claimed_rivals[0] |= np.uint8(1 << place)
    return doubt
