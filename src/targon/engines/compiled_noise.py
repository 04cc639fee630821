"""What the compiled forms of the sampler ``targon/1`` are made of: the compiler, the noise, and its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from targon.protocol.philox import KEY_INCREMENTS, MULTIPLIERS, ROUNDS, WORD_MASK
from targon.protocol.sampler import LN2_PER_BIT, NOISE_BOUND

try:
    import numba
except ImportError:  # the extra `engine` brings it
    COMPILED = False
else:
    COMPILED = True

BLOCKS = 64
"""Blocks of four tokens that are worked on at once: few enough to stay in the first-level cache."""
TILE = 4 * BLOCKS

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile a function with numba where there is numba, and keep the result for the next process."""
    return _jit(function)


def fused(function: _Function) -> _Function:
    """As :func:`compiled`, where a product and a sum may be rounded once instead of twice."""
    return _jit(function, fastmath={"contract"})


def _jit(function: _Function, fastmath: bool | set[str] = False) -> _Function:
    if not COMPILED:
        return function
    try:
        return cast(_Function, numba.njit(cache=True, nogil=True, fastmath=fastmath)(function))
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return cast(_Function, numba.njit(nogil=True, fastmath=fastmath)(function))


@compiled
def draw_words(
    words: NDArray[np.uint64], first: int, position: int, choice: int, low: int, high: int
) -> None:
    """Philox4x32-10 for blocks ``first …``, into ``words: (4, blocks) uint64``."""
    half, mask = np.uint64(32), np.uint64(WORD_MASK)
    m0, m1 = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
    increment0, increment1 = np.uint64(KEY_INCREMENTS[0]), np.uint64(KEY_INCREMENTS[1])
    for i in range(words.shape[1]):
        c0, c1, c2, c3 = np.uint64(first + i), np.uint64(position), np.uint64(choice), np.uint64(0)
        k0, k1 = np.uint64(low), np.uint64(high)
        for _ in range(ROUNDS):
            left, right = c0 * m0, c2 * m1
            c0, c1 = (right >> half) ^ c1 ^ k0, right & mask
            c2, c3 = (left >> half) ^ c3 ^ k1, left & mask
            k0, k1 = (k0 + increment0) & mask, (k1 + increment1) & mask
        words[0, i], words[1, i], words[2, i], words[3, i] = c0, c1, c2, c3


@compiled
def value_of(logit: float, temperature: float, word: int) -> float:
    """``s + g`` of one token."""
    return float(logit) / temperature - math.log(-math.log((float(word) + 0.5) * 2.0**-32))


@compiled
def tile_bounds(
    values: NDArray[np.float32],
    start: int,
    inverse: float,
    words: NDArray[np.uint64],
    floor: float,
    bound: NDArray[np.float64],
) -> int:
    """Bounds of ``s + g`` for a tile of tokens, and how many of them reach a floor. The bits of 1 - u spare the
    logarithms of all tokens but a few, as in :func:`targon.protocol.sampler.contenders`."""
    tile = values[start : start + TILE]
    if tile.size < TILE:
        padded = np.full(TILE, np.float32(-np.inf))
        padded[: tile.size] = tile
        tile = padded
    rest = np.empty((4, BLOCKS), np.float64)
    rest_bits = rest.view(np.int64)
    hits = 0
    for lane in range(4):
        for i in range(BLOCKS):
            rest[lane, i] = (2.0**32 - 0.5) - float(words[lane, i])
        for i in range(BLOCKS):
            noise = NOISE_BOUND - LN2_PER_BIT * float(rest_bits[lane, i])
            bound[lane, i] = tile[4 * i + lane] * inverse + noise
            hits += bound[lane, i] >= floor
    return hits
