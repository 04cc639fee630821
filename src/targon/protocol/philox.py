"""Philox4x32-10: counter-based random words, so that the noise of any position can be had without state.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the constants and
the known answers are those of the authors' Random123 library. One call maps four counter words and two
key words to four output words, each of 32 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
WORD_MASK = 0xFFFFFFFF

_M0, _M1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
_MASK = np.uint64(WORD_MASK)
_HALF = np.uint64(32)

Words = NDArray[np.uint64]
"""Words of 32 bits in an array of 64-bit integers, where the product of two has room."""


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, ...]:
    """Ten rounds of Philox4x32, over arrays of counters under one key.

    Args:
        counter: the four counter words, ``uint64`` arrays of values below 2³² that broadcast together.
        key: the two key words, each below 2³².

    Returns:
        The four output words, with the counters' common shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        left = c0 * _M0
        right = c2 * _M1
        c0, c1, c2, c3 = (
            (right >> _HALF) ^ c1 ^ np.uint64(k0),
            right & _MASK,
            (left >> _HALF) ^ c3 ^ np.uint64(k1),
            left & _MASK,
        )
        k0 = (k0 + KEY_INCREMENTS[0]) & WORD_MASK
        k1 = (k1 + KEY_INCREMENTS[1]) & WORD_MASK
    return tuple(np.broadcast_arrays(c0, c1, c2, c3))
