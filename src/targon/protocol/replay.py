"""The sampler seen from the other side: which token it draws, and by how much a claimed one misses.

One prefill gives a reference engine's log-probabilities for every position of a claimed completion. Here
the sampler is replayed over them. Where the reference reports the whole vocabulary, the result is exact;
with only its most likely tokens, what was not seen is bounded by its probability mass, and a position where
it could matter is marked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targon.protocol.errors import InvalidLogits
from targon.protocol.messages import Sampling
from targon.protocol.sampler import (
    MAX_NOISE,
    Floats,
    Ids,
    all_words,
    candidates,
    check_replayable,
    contenders,
    gumbel,
    gumbel_of,
    only,
    peak_of,
    scaled,
)

_FEW = 8
"""A vocabulary this small is not worth a shortcut."""

MARGIN_CLIP = 10.0
"""The largest margin and gap reported, and the margin of a claimed token that was no candidate: a number, so
that sums over positions stay finite. Honest margins stay below 1; a wrong seed's average is about 3."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What the replayed sampler says of each position. Values are in units of ``s + g`` (T > 0) or logits."""

    best_ids: Ids
    """``(positions,) int64``: the token that the sampler draws."""
    gaps: Floats
    """``(positions,) float64``: best value minus second-best, in [0, MARGIN_CLIP]; MARGIN_CLIP if alone."""
    margins: Floats
    """``(positions,) float64``: best value minus the claimed token's, in [0, MARGIN_CLIP]."""
    among: NDArray[np.bool_]
    """``(positions,) bool``: whether the claimed token was a candidate; if not, its margin is MARGIN_CLIP."""
    unsure: NDArray[np.bool_]
    """``(positions,) bool``: whether tokens that were not seen could change the candidates or the best."""

    @property
    def agreement(self) -> float:
        """Share of positions whose claimed token is the best one; 1.0 for no positions."""
        return float(np.mean(self.margins == 0.0)) if self.margins.size else 1.0


def replay_tokens(
    ids: NDArray[np.integer],
    logprobs: NDArray[np.float32],
    claimed: NDArray[np.integer],
    claimed_logprobs: NDArray[np.float32],
    *,
    vocab_size: int,
    sampling: Sampling,
    run_key: int,
    first_position: int = 0,
) -> Replay:
    """Replay the sampler over a claimed completion.

    Args:
        ids: ``(positions, k) int``, the k most likely tokens, or the whole vocabulary; in any order.
        logprobs: ``(positions, k) float32``, their natural-log probabilities at temperature 1.
        claimed: ``(positions,) int``, the tokens that somebody says were drawn.
        claimed_logprobs: ``(positions,) float32``, of the claimed tokens.
        vocab_size: number of tokens there are.
        sampling: what was asked for, in dialect ``targon/1`` or ``greedy``.
        run_key: 64 bits (:func:`targon.protocol.draws.run_key`).
        first_position: the position of the first row.

    Raises:
        UnsupportedSampling: if the parameters are not this sampler's.
        InvalidLogits: if a log-probability is NaN or +∞, or a position's are all −∞.
    """
    check_replayable(sampling)
    if np.isnan(claimed_logprobs).any() or np.isposinf(claimed_logprobs).any():
        raise InvalidLogits("claimed_logprobs: got NaN or +∞, expected natural-log probabilities")
    fields: list[_Row] = []
    for row, claim in enumerate(claimed.tolist()):
        draw = _Draw(sampling, run_key, first_position + row)
        peak_of(logprobs[row])
        if ids.shape[1] == vocab_size:
            by_id = np.empty_like(logprobs[row])
            by_id[ids[row]] = logprobs[row]
            field = _of_whole(by_id, claim, draw)
        else:
            order = np.argsort(ids[row])
            seen, values = ids[row][order].astype(np.int64), logprobs[row][order]
            field = _of_list(seen, values, claim, float(claimed_logprobs[row]), vocab_size, draw)
        fields.append(_judge(field, claim))
    best, gap, margin, among, unsure = zip(*fields, strict=True) if fields else ((), (), (), (), ())
    return Replay(
        best_ids=np.array(best, dtype=np.int64),
        gaps=np.array(gap, dtype=np.float64),
        margins=np.array(margin, dtype=np.float64),
        among=np.array(among, dtype=np.bool_),
        unsure=np.array(unsure, dtype=np.bool_),
    )


_Row = tuple[int, float, float, bool, bool]
"""One position of a :class:`Replay`, its fields in order."""


@dataclass(frozen=True, slots=True)
class _Draw:
    """What the noise of one position depends on."""

    sampling: Sampling
    run_key: int
    position: int

    def noise(self, token_ids: Ids) -> Floats | float:
        if self.sampling.temperature == 0.0:
            return 0.0
        return gumbel(self.run_key, self.position, self.sampling.choice, token_ids)


@dataclass(frozen=True, slots=True)
class _Field:
    """The candidates of one position that matter: the best two, and the claimed token if it is one."""

    ids: Ids
    values: Floats
    unsure: bool


def _judge(field: _Field, claim: int) -> _Row:
    best = int(np.argmax(field.values))
    rest = np.delete(field.values, best)
    gap = min(float(field.values[best] - rest.max()), MARGIN_CLIP) if rest.size else MARGIN_CLIP
    place = np.flatnonzero((field.ids == claim) & np.isfinite(field.values))
    if not place.size:
        return int(field.ids[best]), gap, MARGIN_CLIP, False, field.unsure
    margin = min(float(field.values[best] - field.values[place[0]]), MARGIN_CLIP)
    return int(field.ids[best]), gap, margin, True, field.unsure


def _of_whole(logprobs: NDArray[np.float32], claim: int, draw: _Draw) -> _Field:
    """The whole vocabulary was seen: exactly the sampler's own candidates."""
    sampling = draw.sampling
    scores = scaled(logprobs, sampling.temperature)
    if sampling.temperature == 0.0:
        return _Field(np.arange(scores.size), scores, unsure=False)
    kept = candidates(scores, sampling.top_k, sampling.top_p)
    if kept.size * 4 < scores.size or scores.size < _FEW:
        return _Field(kept, scores[kept] + draw.noise(kept), unsure=False)
    scores = only(scores, kept)
    words = all_words(draw.run_key, draw.position, sampling.choice, scores.size)
    likely = np.argpartition(scores, -2)[-2:]
    floor = float((scores[likely] + gumbel_of(words[likely])).min())  # the second-best value is no lower
    ids = np.union1d(contenders(scores, words, floor), [claim])
    return _Field(ids, scores[ids] + gumbel_of(words[ids]), unsure=False)


def _of_list(
    ids: Ids, logprobs: NDArray[np.float32], claim: int, claimed_logprob: float, vocab_size: int, draw: _Draw
) -> _Field:
    """Only the most likely tokens were seen, here in id order.

    In doubt, the claimed token is a candidate and no other is: so a doubt never adds to a margin.
    """
    sampling = draw.sampling
    scores = scaled(logprobs, sampling.temperature)
    certain, possible = _cut_list(scores, logprobs, vocab_size, sampling)
    unsure = possible is not None and possible.size > certain.size
    ids_kept, kept = ids[certain], scores[certain]
    if claim not in ids_kept and (possible is None or claim in ids[possible]):
        place = int(np.searchsorted(ids_kept, claim))
        ids_kept = np.insert(ids_kept, place, claim)
        kept = np.insert(kept, place, scaled(claimed_logprob, sampling.temperature))
    values = kept + draw.noise(ids_kept)
    if possible is None and sampling.temperature > 0.0:
        unsure = certain.size < ids.size or bool(values.max() <= scores.min() + MAX_NOISE)
    return _Field(ids_kept, values, unsure)


def _cut_list(
    scores: Floats, logprobs: NDArray[np.float32], vocab_size: int, sampling: Sampling
) -> tuple[Ids, Ids | None]:
    """The indices of the seen tokens that are candidates for certain, and of those that may be (None: all of
    them, and unseen ones too), each in increasing order."""
    everything = np.arange(scores.size)
    if sampling.temperature == 0.0:
        return everything, None
    if 0 < sampling.top_k <= scores.size:
        kept = candidates(scores, sampling.top_k, sampling.top_p)
        return kept, kept
    if sampling.top_p == 1.0:
        return everything, None
    weights = np.exp(scores - scores.max())
    order = np.argsort(-scores, kind="stable")
    running = np.cumsum(weights[order])
    seen = np.cumsum(weights)[-1]
    low, high = unseen_weight(logprobs, vocab_size, sampling.temperature)
    if sampling.top_k:
        low = 0.0  # top-k drops an unknown part of what was not seen
    narrow, wide = np.searchsorted(running, [sampling.top_p * (seen + low), sampling.top_p * (seen + high)])
    certain = np.sort(order[: narrow + 1])
    return certain, None if wide == scores.size else np.sort(order[: wide + 1])


def unseen_weight(logprobs: NDArray[np.float32], vocab_size: int, temperature: float) -> tuple[float, float]:
    """Bounds of the weight of all tokens outside a list, where the list's best token weighs 1.

    Their probabilities sum to m = 1 − Σp and none exceeds the list's least, q. With r = 1/T and n of them,
    Σpʳ lies between m·qʳ⁻¹ (all mass on as few as may be) and n·(m/n)ʳ (spread evenly); for r < 1 the two
    change places.

    Args:
        logprobs: ``(k,) float32``, natural-log probabilities of the k most likely tokens at temperature 1.
    """
    probabilities = np.exp(logprobs.astype(np.float64))
    count = vocab_size - logprobs.size
    mass, least = max(0.0, 1.0 - float(probabilities.sum())), float(probabilities.min())
    if mass == 0.0 or least == 0.0:
        return 0.0, 0.0
    power = 1.0 / temperature
    concentrated = math.log(mass) + (power - 1.0) * math.log(least)
    spread = math.log(count) + power * math.log(mass / count)
    top = float(logprobs.max()) * power
    low, high = sorted((concentrated, spread))
    return math.exp(low - top), math.exp(high - top)
