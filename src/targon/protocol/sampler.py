"""The sampler ``targon/1``: Gumbel-max over counter-based noise, replayable at any position without state.

The rules, in order:

1. ``s = logit / T``, in float64 from here on. A token with ``s = −∞`` is never drawn.
2. Candidates are ordered by ``(−s, id)``; top-k keeps exactly the first k.
3. Weights ``w = exp(s − max s)``. Their total is the sum over those candidates in id order, one after
   another. Top-p keeps the shortest prefix of the order whose running sum is at least ``p · total``: one
   candidate at least, all of them where rounding lets no prefix reach it.
4. The noise of a token: 32-bit ``x`` = word ``id % 4`` of Philox4x32-10 with counter ``(id // 4, position,
   choice, 0)`` and key ``(low, high)`` halves of the run key; ``u = (x + 0.5)·2⁻³²``; ``g = −ln(−ln u)``.
5. The token is the candidate with the highest ``s + g``, ties to the lowest id.
6. ``T = 0``: the highest logit, ties to the lowest id; no noise, no cuts.

Philox: Salmon et al., SC 2011. Gumbel-max: Gumbel 1954; Maddison et al., arXiv 1411.0030. :func:`choose`
draws noise for every candidate but takes logarithms only where they could decide; :func:`gumbel` is the
plain form of rule 4 that it must agree with.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from targon.protocol.errors import InvalidLogits, UnsupportedSampling
from targon.protocol.messages import Sampling
from targon.protocol.philox import WORD_MASK, Words, philox4x32
from targon.protocol.primitives import TokenId

MIN_TEMPERATURE = 0.05
"""Lowest temperature above 0: below it, division blows up the numerical noise between honest engines."""

MIN_NOISE = -math.log(-math.log(0.5 * 2.0**-32))
"""The least noise there is (x = 0): about −3.130."""
MAX_NOISE = -math.log(-math.log((2.0**32 - 0.5) * 2.0**-32))
"""The most noise there is (x = 2³² − 1): about 22.874."""

LN2_PER_BIT = math.log(2.0) * 2.0**-52
"""By how much the bound of a natural logarithm grows with a float64's bits, read as an integer."""
NOISE_BOUND = math.log(2.0) * (32 + 1023)
"""``g ≤ NOISE_BOUND − LN2_PER_BIT · bits(2³²·(1 − u))``; 1023 is the bias of a float64's exponent."""

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

_FIRST_PREFIX = 256
_PREFIX_GROWTH = 4


def check_sampling(sampling: Sampling) -> None:
    """Check that the named dialect covers these parameters.

    Raises:
        UnsupportedSampling: naming the parameter, the value that was sent and what is allowed.
    """
    temperature = sampling.temperature
    if sampling.dialect == "greedy" and temperature != 0.0:
        raise UnsupportedSampling("temperature", temperature, "0.0 with dialect 'greedy'")
    if 0.0 < temperature < MIN_TEMPERATURE:
        raise UnsupportedSampling("temperature", temperature, f"0.0 or at least {MIN_TEMPERATURE}")


def check_replayable(sampling: Sampling) -> None:
    """Check that this sampler is the one that the parameters name; raises as :func:`check_sampling` does."""
    check_sampling(sampling)
    if sampling.dialect not in ("targon/1", "greedy"):
        raise UnsupportedSampling("dialect", sampling.dialect, "'targon/1' or 'greedy'")


def scaled(logits: ArrayLike, temperature: float) -> Floats:
    """Rule 1: ``s = logit / T`` in float64; at T = 0 the logits themselves."""
    values = np.asarray(logits, dtype=np.float64)
    return values if temperature == 0.0 else values / temperature


def gumbel(run_key: int, position: int, choice: int, token_ids: ArrayLike) -> Floats:
    """Rule 4: the noise of some tokens, in their order.

    Args:
        run_key: 64 bits (:func:`targon.protocol.draws.run_key`).
        position: number of tokens generated before this one, below 2³².
        choice: index of the answer where several were asked for, below 2³².
        token_ids: integers ≥ 0, any shape.

    Returns:
        Standard Gumbel noise, float64, of the same shape; always finite.
    """
    ids = np.asarray(token_ids, dtype=np.uint64)
    words = np.stack(noise_words(run_key, position, choice, ids >> np.uint64(2)), axis=-1)
    lane = (ids & np.uint64(3)).astype(np.intp)
    return gumbel_of(np.take_along_axis(words, lane[..., None], axis=-1)[..., 0])


def gumbel_rows(run_key: int, first_position: int, choice: int, token_ids: Ids) -> Floats:
    """Rule 4 for several positions at once: row i holds the noise of some tokens at position ``first_position + i``.

    Args:
        token_ids: ``(positions, any) int64``.

    Returns:
        Standard Gumbel noise, float64, of the same shape: what :func:`gumbel` gives row by row.
    """
    check_draw(run_key, first_position + max(len(token_ids) - 1, 0), choice)
    ids = token_ids.astype(np.uint64)
    positions = np.arange(first_position, first_position + len(ids), dtype=np.uint64)[:, None]
    counter = (ids >> np.uint64(2), positions, np.array(choice, np.uint64), np.array(0, np.uint64))
    words = np.stack(philox4x32(counter, (run_key & WORD_MASK, run_key >> 32)), axis=-1)
    lane = (ids & np.uint64(3)).astype(np.intp)
    return gumbel_of(np.take_along_axis(words, lane[..., None], axis=-1)[..., 0])


def check_draw(run_key: int, position: int, choice: int) -> None:
    """Check that a draw's numbers fit the words of Philox.

    Raises:
        ValueError: if the key has more than 64 bits, or position or choice more than 32.
    """
    for name, value, bits in (("run_key", run_key, 64), ("position", position, 32), ("choice", choice, 32)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name}: got {value}, expected an integer in [0, 2**{bits})")


def noise_words(run_key: int, position: int, choice: int, blocks: Words) -> tuple[Words, ...]:
    """The four words ``x`` of each block of four token ids; raises as :func:`check_draw` does."""
    check_draw(run_key, position, choice)
    counter = (blocks, np.array(position, np.uint64), np.array(choice, np.uint64), np.array(0, np.uint64))
    return philox4x32(counter, (run_key & WORD_MASK, run_key >> 32))


def gumbel_of(words: Words) -> Floats:
    """``g = −ln(−ln u)`` with ``u = (x + 0.5)·2⁻³²``; in float32 the largest x would give infinite noise."""
    u = (words.astype(np.float64) + 0.5) * 2.0**-32
    return np.asarray(-np.log(-np.log(u)), dtype=np.float64)


def candidates(scores: Floats, top_k: int, top_p: float) -> Ids:
    """Rules 2 and 3: which tokens may be drawn.

    Args:
        scores: ``(vocab,) float64``, s by token id, not all −∞.
        top_k: how many to keep; 0: all.
        top_p: the share of probability to keep; 1.0: all.

    Returns:
        ``(n,) int64``, token ids in increasing order, n ≥ 1.
    """
    if not 0 < top_k < scores.size:
        return np.arange(scores.size) if top_p == 1.0 else _nucleus(scores, top_p)
    kept = np.sort(_first(scores, top_k))
    return kept if top_p == 1.0 else kept[_nucleus(scores[kept], top_p)]


def _first(scores: Floats, count: int) -> Ids:
    """The first ``count`` indices in the order ``(−s, index)``, without sorting the rest."""
    threshold = np.partition(scores, scores.size - count)[scores.size - count]
    reaching = np.flatnonzero(scores >= threshold)
    return reaching[np.argsort(-scores[reaching], kind="stable")[:count]]


def _nucleus(scores: Floats, top_p: float) -> Ids:
    """Rule 3 over scores in id order: the indices that top-p keeps, in increasing order."""
    weights = np.exp(scores - scores.max())
    goal = top_p * np.cumsum(weights)[-1]
    count = min(_FIRST_PREFIX, scores.size)
    while True:
        prefix = _first(scores, count)
        running = np.cumsum(weights[prefix])
        if running[-1] >= goal or count == scores.size:
            return np.sort(prefix[: int(np.searchsorted(running, goal)) + 1])
        count = min(count * _PREFIX_GROWTH, scores.size)


def choose(logits: ArrayLike, sampling: Sampling, run_key: int, position: int) -> TokenId:
    """The token at one position.

    Args:
        logits: ``(vocab,) float32``, logits or log-probabilities (a shift changes nothing), by token id.
        sampling: dialect ``targon/1`` or ``greedy``.
        run_key: 64 bits (:func:`targon.protocol.draws.run_key`).
        position: number of tokens generated before this one.

    Raises:
        UnsupportedSampling: if the parameters are not this sampler's.
        InvalidLogits: if a logit is NaN or +∞, or all are −∞.
    """
    check_replayable(sampling)
    values = np.asarray(logits, dtype=np.float32)
    peak = peak_of(values)
    if sampling.temperature == 0.0:
        return peak
    scores = scaled(values, sampling.temperature)
    if sampling.top_k or sampling.top_p < 1.0:
        kept = candidates(scores, sampling.top_k, sampling.top_p)
        if kept.size * 4 < scores.size:
            noise = gumbel(run_key, position, sampling.choice, kept)
            return TokenId(int(kept[np.argmax(scores[kept] + noise)]))
        scores = only(scores, kept)
    words = all_words(run_key, position, sampling.choice, scores.size)
    ids = contenders(scores, words, float(scores[peak] + gumbel_of(words[peak])))
    return TokenId(int(ids[np.argmax(scores[ids] + gumbel_of(words[ids]))]))


def peak_of(logits: NDArray[np.floating]) -> TokenId:
    """The highest logit's token, ties to the lowest id: rule 6.

    Raises:
        InvalidLogits: as :func:`choose` does.
    """
    if logits.ndim != 1 or logits.size == 0:
        raise InvalidLogits(f"logits: got an array of shape {logits.shape}, expected (vocab,), vocab ≥ 1")
    peak = int(logits.argmax())  # the first NaN, if there is one
    if not np.isfinite(logits[peak]):
        what = "all −∞" if logits[peak] == -np.inf else f"{logits[peak]} for token {peak}"
        raise InvalidLogits(f"logits: got {what}, expected finite numbers or −∞, and not all −∞")
    return TokenId(peak)


def only(scores: Floats, kept: Ids) -> Floats:
    """Scores in which every token but the kept ones is −∞."""
    masked = np.full_like(scores, -np.inf)
    masked[kept] = scores[kept]
    return masked


def all_words(run_key: int, position: int, choice: int, vocab: int) -> Words:
    """The words ``x`` of every token: ``(vocab,) uint64``."""
    blocks = np.arange((vocab + 3) // 4, dtype=np.uint64)
    return np.stack(noise_words(run_key, position, choice, blocks), axis=-1).reshape(-1)[:vocab]


def contenders(scores: Floats, words: Words, floor: float) -> Ids:
    """Every token whose ``s + g`` could reach a floor, and a few more; no logarithm is taken.

    As −ln u ≥ 1 − u, g is at most −ln(1 − u); and the bits of a float64, read as an integer, are a lower
    bound of its base-2 logarithm.

    Returns:
        ``(n,) int64``, token ids in increasing order.
    """
    rest = (2.0**32 - 0.5) - words  # 2³²·(1 − u), exact
    bound = rest.view(np.int64) * -LN2_PER_BIT
    bound += scores
    return np.flatnonzero(bound >= floor - tolerance(floor) - NOISE_BOUND)


def tolerance(value: float) -> float:
    """How far rounding may put two forms of one ``s + g`` apart, generously."""
    return 1e-9 + 1e-12 * abs(value)
