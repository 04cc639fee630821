"""The sampler ``targon/1`` for engines in this process: compiled where numba is installed, else plain numpy.

The compiled pass draws the same noise as :func:`targon.protocol.sampler.choose`, and leaves to it every
decision that rounding could turn: a token is chosen here only if it beats all others by far more than two
implementations of the logarithm can differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from targon.engines.compiled_cut_sampler import race_after_cut
from targon.engines.compiled_noise import BLOCKS, TILE, compiled, draw_words, tile_bounds, value_of
from targon.engines.compiled_noise import COMPILED as COMPILED
from targon.protocol.messages import Sampling
from targon.protocol.philox import WORD_MASK
from targon.protocol.primitives import TokenId
from targon.protocol.sampler import check_draw, check_replayable, choose, peak_of, tolerance


def choose_batch(
    logits: NDArray[np.float32], draws: Sequence[tuple[Sampling, int, int]]
) -> NDArray[np.int64]:
    """The next token of several sequences.

    Args:
        logits: ``(batch, vocab) float32``, one row per sequence.
        draws: per row its sampling parameters, run key and position, as in
            :func:`targon.protocol.sampler.choose`.

    Returns:
        ``(batch,) int64``, token ids: exactly those that ``choose`` gives row by row.

    Raises:
        ValueError: if there are not as many draws as rows.
        UnsupportedSampling, InvalidLogits: as ``choose`` does.
    """
    return np.array(
        [choose_fast(row, *draw) for row, draw in zip(logits, draws, strict=True)], dtype=np.int64
    )


def choose_fast(logits: NDArray[np.float32], sampling: Sampling, run_key: int, position: int) -> TokenId:
    """The same token as :func:`targon.protocol.sampler.choose`, sooner. Raises as that does."""
    if not COMPILED or sampling.temperature == 0.0:
        return choose(logits, sampling, run_key, position)
    check_replayable(sampling)
    check_draw(run_key, position, sampling.choice)
    values = np.ascontiguousarray(logits, dtype=np.float32)
    peak = peak_of(values)
    draw = (position, sampling.choice, run_key & WORD_MASK, run_key >> 32)
    if 0 < sampling.top_k < values.size or sampling.top_p < 1.0:
        best, doubt = race_after_cut(
            values, peak, sampling.temperature, sampling.top_k, sampling.top_p, *draw
        )
    else:
        best, value, second = _race(values, sampling.temperature, peak, *draw)
        doubt = value - second <= tolerance(value)
    return choose(logits, sampling, run_key, position) if doubt else TokenId(best)


@compiled
def _race(
    logits: NDArray[np.float32],
    temperature: float,
    peak: int,
    position: int,
    choice: int,
    low: int,
    high: int,
) -> tuple[int, float, float]:
    """The best ``s + g`` of a vocabulary: its token, its value, and the second-best value if that is close.

    As in :func:`targon.protocol.sampler.contenders`, a bound from the bits of 1 − u spares the logarithms
    of all tokens but a few.
    """
    words = np.empty((4, BLOCKS), np.uint64)
    bound = np.empty((4, BLOCKS), np.float64)
    inverse = 1.0 / temperature

    draw_words(words[:, :1], peak // 4, position, choice, low, high)
    best, second = peak, -np.inf
    value = value_of(logits[peak], temperature, words[peak % 4, 0])

    for start in range(0, logits.size, TILE):
        draw_words(words, start // 4, position, choice, low, high)
        floor = value - 1e-9 - 1e-12 * abs(value)
        if tile_bounds(logits, start, inverse, words, floor, bound) == 0:
            continue
        for lane in range(4):
            for i in range(BLOCKS):
                token = start + 4 * i + lane
                if bound[lane, i] >= floor and token != peak:
                    reached = value_of(logits[token], temperature, words[lane, i])
                    if reached > value:
                        best, value, second = token, reached, value
                    elif reached > second:
                        second = reached
    return best, value, second
