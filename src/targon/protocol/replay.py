"""The sampler seen from the other side: which token it draws, and by how much a claimed one misses.

One prefill gives a reference engine's log-probabilities for every position of a claimed completion. Here
the sampler is replayed over them. Where the reference reports the whole vocabulary, the result is exact;
with only its most likely tokens, what was not seen is bounded by its probability mass, and a position where
it could matter is marked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targon.protocol.cut_edge import hangs_on_cut
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
    gumbel_rows,
    only,
    peak_of,
    scaled,
)
from targon.protocol.suspicions import (
    LEAD_EDGES,
    NO_ONE,
    REACH,
    SUSPICIONS,
    Rival,
    claim_code,
    lead_code,
    rival_of,
    suspected_temperatures,
)

_FEW = 8
"""A vocabulary this small is not worth a shortcut."""

MARGIN_CLIP = 10.0
"""The largest margin and gap reported, and the margin of a claimed token that was no candidate: a number, so
that sums over positions stay finite. Honest margins stay below 1; a wrong seed's average is about 3."""

TAIL_PROBABILITY = 0.05
"""A token that is drawn less often than this lies in the tail of its position's distribution."""

TAIL_CERTAINTY = 1e-3
"""How exactly the mass of a tail must be known from a list of tokens to be reported at all."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What the replayed sampler says of each position. Values are in units of ``s + g`` (T > 0) or logits."""

    best_ids: Ids
    """``(positions,) int64``: the token that the sampler draws."""
    gaps: Floats
    """``(positions,) float64``: best value minus second-best, in [0, MARGIN_CLIP]; MARGIN_CLIP if alone. It
    doesn't depend on the claimed token, nor does :attr:`tail_mass`: they are fixed before it is looked at.
    Where tokens that were not seen could be second-best, it is the least that the gap can be."""
    margins: Floats
    """``(positions,) float64``: best value minus the claimed token's, in [0, MARGIN_CLIP]."""
    among: NDArray[np.bool_]
    """``(positions,) bool``: whether the claimed token was a candidate; if not, its margin is MARGIN_CLIP."""
    unsure: NDArray[np.bool_]
    """``(positions,) bool``: whether tokens that were not seen could change the candidates or the best."""
    on_cut: NDArray[np.bool_]
    """``(positions,) bool``: whether the draw hangs on where exactly top-k or top-p falls
    (:mod:`targon.protocol.cut_edge`): a mismatch says little there, whatever its margin. Like the gap it doesn't
    depend on the claimed token."""
    tail_mass: Floats
    """``(positions,) float64``: the probability that the sampler draws a token whose own probability is below
    TAIL_PROBABILITY, after temperature and cuts; NaN at T = 0, and where a list can't tell it."""
    in_tail: NDArray[np.bool_]
    """``(positions,) bool``: whether the claimed token is such a token, or no candidate at all; False where
    ``tail_mass`` is NaN."""
    rivals: NDArray[np.uint32]
    """``(positions,) uint32``: by how much the best token leads its rival under each suspicion
    (:func:`targon.protocol.suspicions.lead_code`). It doesn't depend on the claimed token."""
    claimed_rivals: NDArray[np.uint8]
    """``(positions,) uint8``: bit n: the claimed token is the rival under suspicion n."""

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
    whole = ids.shape[1] == vocab_size
    table = None if whole else _noise_table(ids, claimed, sampling, run_key, first_position)
    for row, claim in enumerate(claimed.tolist()):
        draw = _Draw(sampling, run_key, first_position + row)
        peak_of(logprobs[row])
        if table is None:
            by_id = np.empty_like(logprobs[row])
            by_id[ids[row]] = logprobs[row]
            field = _of_whole(by_id, claim, draw)
        else:
            order = np.argsort(ids[row])
            seen = _Seen(
                ids[row][order].astype(np.int64), logprobs[row][order], table[row][:-1][order], vocab_size
            )
            field = _of_list(seen, claim, float(claimed_logprobs[row]), float(table[row][-1]), sampling)
        fields.append(_judge(field, claim))
    columns = zip(*fields, strict=True) if fields else ((),) * len(_DTYPES)
    return Replay(*(np.array(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=True)))


_Row = tuple[int, float, float, bool, bool, bool, float, bool, int, int]
"""One position of a :class:`Replay`, its fields in order."""
_DTYPES = (
    np.int64,
    np.float64,
    np.float64,
    np.bool_,
    np.bool_,
    np.bool_,
    np.float64,
    np.bool_,
    np.uint32,
    np.uint8,
)


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


def _noise_table(
    ids: NDArray[np.integer],
    claimed: NDArray[np.integer],
    sampling: Sampling,
    run_key: int,
    first_position: int,
) -> Floats:
    """``(positions, k + 1) float64``: the noise of the tokens of each list, and last that of the claimed one."""
    tokens = np.concatenate([ids, claimed[:, None]], axis=1).astype(np.int64)
    if sampling.temperature == 0.0:
        return np.zeros(tokens.shape)
    return gumbel_rows(run_key, first_position, sampling.choice, tokens)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The most likely tokens of one position, in id order."""

    ids: Ids
    logprobs: NDArray[np.float32]
    noise: Floats
    vocab_size: int


@dataclass(frozen=True, slots=True)
class _Field:
    """The candidates of one position that matter: the best two at least."""

    ids: Ids
    values: Floats
    claim: float
    """The claimed token's value; −∞ if it is no candidate."""
    unsure: bool
    tail: tuple[float, bool]
    """``tail_mass`` and ``in_tail``."""
    rival: float = -math.inf
    """The most that the value of a token outside ``ids`` can be."""
    on_cut: bool = False
    rivals: Sequence[Rival] = (NO_ONE,) * len(SUSPICIONS)


_NO_TAIL = (math.nan, False)


def _judge(field: _Field, claim: int) -> _Row:
    best = int(np.argmax(field.values))
    value = float(field.values[best])
    second = max(float(np.delete(field.values, best).max(initial=-math.inf)), field.rival)
    gap = min(max(value - second, 0.0), MARGIN_CLIP)
    codes = lead_code(field.rivals), claim_code(field.rivals, claim)
    known = (field.unsure, field.on_cut, *field.tail, *codes)
    if field.claim == -math.inf:
        return int(field.ids[best]), gap, MARGIN_CLIP, False, *known
    if field.claim > value:  # only where tokens that were not seen could be best
        return claim, gap, 0.0, True, *known[:-1], 0
    return int(field.ids[best]), gap, min(value - field.claim, MARGIN_CLIP), True, *known


def _value_of(claim: int, ids: Ids, values: Floats) -> float:
    place = int(np.searchsorted(ids, claim))
    return float(values[place]) if place < ids.size and ids[place] == claim else -math.inf


def _of_whole(logprobs: NDArray[np.float32], claim: int, draw: _Draw) -> _Field:
    """The whole vocabulary was seen: exactly the sampler's own candidates."""
    sampling = draw.sampling
    scores = scaled(logprobs, sampling.temperature)
    if sampling.temperature == 0.0:
        return _Field(np.arange(scores.size), scores, float(scores[claim]), unsure=False, tail=_NO_TAIL)
    kept = candidates(scores, sampling.top_k, sampling.top_p)
    tail = _tail(scores[kept], _value_of(claim, kept, scores[kept]))
    logits = np.asarray(logprobs, np.float64)
    if kept.size * 4 < scores.size or scores.size < _FEW:
        ids, noise = kept, np.asarray(draw.noise(kept))
    else:
        within = only(scores, kept)
        words = all_words(draw.run_key, draw.position, sampling.choice, scores.size)
        likely = np.argpartition(within, -2)[-2:]
        reached = within[likely] + gumbel_of(
            words[likely]
        )  # the second-best value is no lower than the lower
        floor = float(min(reached.min(), reached.max() - REACH / sampling.temperature))
        ids = np.union1d(contenders(within, words, floor), [claim])
        ids = ids[within[ids] > -np.inf]
        noise = gumbel_of(words[ids])
    values = scores[ids] + noise
    best = int(np.argmax(values))
    found = int(ids[best]), float(values[best])
    on_cut = hangs_on_cut(logits, kept, found, sampling, draw.noise, None)
    rivals = [
        rival_of(found[0], ids, logits[ids], noise, other)
        for other in suspected_temperatures(sampling.temperature)
    ]
    rivals.append(NO_ONE if kept.size == scores.size else _without_cut(logits, found, draw))
    return _Field(
        ids, values, _value_of(claim, ids, values), unsure=False, tail=tail, on_cut=on_cut, rivals=rivals
    )


def _without_cut(logits: Floats, found: tuple[int, float], draw: _Draw) -> Rival:
    """The rival in a whole vocabulary of a token, whose value is known."""
    temperature = draw.sampling.temperature
    words = all_words(draw.run_key, draw.position, draw.sampling.choice, logits.size)
    floor = found[1] - LEAD_EDGES[-1] / temperature
    ids = np.union1d(contenders(logits / temperature, words, floor), [found[0]])
    return rival_of(found[0], ids, logits[ids], gumbel_of(words[ids]), temperature)


def _of_list(
    seen: _Seen, claim: int, claimed_logprob: float, claimed_noise: float, sampling: Sampling
) -> _Field:
    """Only the most likely tokens were seen.

    In doubt, the claimed token is a candidate and no other is: so a doubt never adds to a margin.
    """
    ids, logprobs, noise, vocab_size = seen.ids, seen.logprobs, seen.noise, seen.vocab_size
    scores = scaled(logprobs, sampling.temperature)
    certain, possible = _cut_list(scores, logprobs, vocab_size, sampling)
    unsure = possible is not None and possible.size > certain.size
    ids_kept, kept = ids[certain], scores[certain]
    own_score = _value_of(claim, ids_kept, kept)
    if own_score == -math.inf and (possible is None or claim in ids[possible]):
        own_score = float(scaled(claimed_logprob, sampling.temperature))
    own = own_score + claimed_noise
    if sampling.temperature == 0.0:
        return _Field(ids_kept, kept, own, unsure, _NO_TAIL, rival=float(scores.min()))
    values = kept + noise[certain]
    best = int(np.argmax(values))
    exact, drawn = logprobs.astype(np.float64), int(ids_kept[best])
    rivals = [
        rival_of(drawn, ids_kept, exact[certain], noise[certain], other)
        for other in suspected_temperatures(sampling.temperature)
    ]
    rivals.append(
        NO_ONE if certain.size == ids.size else rival_of(drawn, ids, exact, noise, sampling.temperature)
    )
    on_cut = hangs_on_cut(
        exact,
        certain,
        (int(certain[best]), float(values[best])),
        sampling,
        lambda places: noise[places],
        sum(unseen_weight(logprobs, vocab_size, sampling.temperature)) / 2.0,
    )
    if possible is not None:
        tail = _NO_TAIL if unsure else _tail(kept, own_score)
        return _Field(ids_kept, values, own, unsure, tail, on_cut=on_cut, rivals=rivals)
    rival = float(scores.min()) + MAX_NOISE
    unsure = certain.size < ids.size or max(float(values.max()), own) <= rival
    tail = _NO_TAIL
    if sampling.top_p == 1.0:
        low, high = unseen_weight(logprobs, vocab_size, sampling.temperature)
        tail = _tail(kept, own_score, 0.0 if sampling.top_k else low, high)
    return _Field(ids_kept, values, own, unsure, tail, rival, on_cut, rivals)


def _tail(scores: Floats, own: float, low: float = 0.0, high: float = 0.0) -> tuple[float, bool]:
    """``tail_mass`` and ``in_tail`` of candidates, where the claimed token's score is ``own``.

    Args:
        low, high: bounds of the weight of candidates that were not seen, where the best weighs 1; none of
            them weighs more than the least of those seen.
    """
    peak = scores.max()
    weights = np.exp(scores - peak)
    seen = float(weights.sum())

    def mass(total: float) -> float:
        heavy = weights[weights >= TAIL_PROBABILITY * total]
        return max(0.0, 1.0 - float(heavy.sum()) / total)

    total = seen + (low + high) / 2.0
    if high > 0.0 and (
        float(weights.min()) >= TAIL_PROBABILITY * (seen + low)
        or mass(seen + high) - mass(seen + low) > TAIL_CERTAINTY
    ):
        return _NO_TAIL
    return mass(total), math.exp(min(own - peak, 0.0)) < TAIL_PROBABILITY * total


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
