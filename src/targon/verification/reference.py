"""Whether what our own reference engine says is to be believed: it may be broken, and that charges nobody.

Each check takes an engine's answer and returns, in words, what is wrong with it, or None. Numbers are checked
one by one, and against one another: a margin of 0 next to another best token, say, is no answer of a sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from targon.engines import Replayed, Scores
from targon.protocol.replay import MARGIN_CLIP, Replay
from targon.protocol.suspicions import possible_codes

Bools: TypeAlias = NDArray[np.bool_]

CLEAR_GAP: Final = 1.0
"""Logits. Rounding doesn't turn a draw that was won by more: seen of honest engines are 0.5 at most."""

DRIFT: Final = 2.0
"""Nats. Rounding doesn't move a token's log-probability by more: seen of one bf16 engine, alone and in a
batch, over tokens drawn at random, are 0.36 at most."""

_ROUNDING: Final = 1e-3
"""A log-probability may come out this much above 0, and a sum of probabilities this much above 1."""

_EQUAL: Final = 1e-6
"""Two differences of the same values may differ by this much."""


def doubt_replayed(results: Sequence[Replayed], claimed: NDArray[np.int64], vocab_size: int) -> str | None:
    """What is wrong with the replay of one completion."""
    if len(results) != 1:
        return _partial(f"{len(results)} answers", "1")
    (replayed,) = results
    replay = replayed.replay
    for name in Replay.__slots__:
        if (wrong := _misfit(name, getattr(replay, name), _KINDS.get(name, "f"), claimed.shape)) is not None:
            return wrong
    for name, kind in (("claimed_logprobs", "f"), ("claimed_ranks", "iu")):
        if (wrong := _misfit(name, getattr(replayed, name), kind, claimed.shape)) is not None:
            return wrong
    logprobs, margins, tails = replayed.claimed_logprobs, replay.margins, replay.tail_mass
    # a token of probability zero is no candidate: where it is said to be one, the number is wrong
    believed = np.isfinite(logprobs) | ((logprobs == -math.inf) & ~replay.among & (margins > 0.0))
    chosen, claims = replay.best_ids == claimed, replay.claimed_rivals
    certain = ~replay.unsure & ~chosen
    return (
        _bad("log-probability", logprobs, believed & ~(logprobs > _ROUNDING))
        or _bad("margin", margins, (margins >= 0.0) & (margins <= MARGIN_CLIP))
        or _bad("gap", replay.gaps, (replay.gaps >= 0.0) & (replay.gaps <= MARGIN_CLIP))
        or _bad("best token", replay.best_ids, (replay.best_ids >= 0) & (replay.best_ids < vocab_size))
        or _bad("rank", replayed.claimed_ranks, _between(replayed.claimed_ranks, 0, vocab_size - 1))
        or _bad("tail mass", tails, np.isnan(tails) | ((tails >= 0.0) & (tails <= 1.0)))
        or _bad("margin, of the best token itself,", margins, ~chosen | (margins == 0.0))
        or _bad("margin, less than the gap,", margins, ~certain | (margins >= replay.gaps - _EQUAL))
        or _bad("margin, of no candidate,", margins, replay.among | (margins == MARGIN_CLIP))
        or _bad("leads of rivals", replay.rivals, possible_codes(replay.rivals, replay.claimed_rivals))
        or _bad("claimed rivals, of the best token itself,", claims, ~chosen | (claims == 0))
        or _whole(replayed.prompt_tokens, replayed.top_k, vocab_size)
    )


def doubt_scores(results: Sequence[Scores], claimed: NDArray[np.int64], vocab_size: int) -> str | None:
    """What is wrong with the scores of one completion: the most likely tokens of each position, in order."""
    if len(results) != 1:
        return _partial(f"{len(results)} answers", "1")
    (scores,) = results
    for name, kind in (("claimed_logprobs", "f"), ("claimed_ranks", "iu")):
        if (wrong := _misfit(name, getattr(scores, name), kind, claimed.shape)) is not None:
            return wrong
    count = (
        scores.top_ids.shape[1] if isinstance(scores.top_ids, np.ndarray) and scores.top_ids.ndim == 2 else 1
    )
    shape = (claimed.size, max(count, 1))
    for name, kind in (("top_ids", "iu"), ("top_logprobs", "f")):
        if (wrong := _misfit(name, getattr(scores, name), kind, shape)) is not None:
            return wrong
    top, own, ranks = scores.top_logprobs, scores.claimed_logprobs, scores.claimed_ranks
    with np.errstate(invalid="ignore", over="ignore"):
        mass = np.exp(top.astype(np.float64)).sum(axis=1)
        falling = (top[:, 1:] <= top[:, :-1]).all(axis=1)
    listed = scores.top_ids == claimed[:, None]
    agreeing = ~listed | (np.abs(top - own[:, None]) <= _ROUNDING) | (top == own[:, None])
    return (
        _bad("log-probability", own, ~np.isnan(own) & (own <= _ROUNDING))
        or _bad("rank", ranks, _between(ranks, 0, vocab_size - 1))
        or _bad(
            "probabilities that sum to", mass, np.isfinite(mass) & (mass > 0.0) & (mass <= 1.0 + _ROUNDING)
        )
        or _bad("a list out of order, from", top[:, 0], falling)
        or _bad("token", scores.top_ids.max(axis=1), _between(scores.top_ids, 0, vocab_size - 1).all(axis=1))
        or _bad("log-probability, against the list's,", own, agreeing.all(axis=1))
        or _bad("rank, but the token is in the list,", ranks, ~listed.any(axis=1) | (ranks < shape[1]))
        or _whole(scores.prompt_tokens, 0, vocab_size)
    )


def contradiction(first: Replayed, second: Replayed, temperature: float) -> str | None:
    """Where two replays of one completion differ by more than rounding explains.

    Both must have been believed. Sampled values are in units of the temperature; gaps are compared in logits.
    """
    for name in ("prompt_tokens", "top_k"):
        got, then = getattr(first, name), getattr(second, name)
        if got != then:
            return f"{name} {got}, then {then}"
    one, other = first.replay, second.replay
    clear = np.minimum(one.gaps, other.gaps) * (temperature or 1.0) > CLEAR_GAP
    doubtful = one.unsure | other.unsure | one.on_cut | other.on_cut
    turned = np.flatnonzero(clear & ~doubtful & (one.best_ids != other.best_ids))
    if turned.size:
        place = int(turned[0])
        return f"token {one.best_ids[place]} at position {place}, then {other.best_ids[place]}"
    floor = np.float64(-100.0)
    was, now = (np.maximum(each.claimed_logprobs.astype(np.float64), floor) for each in (first, second))
    moved = np.flatnonzero(np.abs(was - now) > DRIFT)
    if moved.size:
        place = int(moved[0])
        return f"log-probability {was[place]:.2f} at position {place}, then {now[place]:.2f}"
    return None


_KINDS: Final = {
    "best_ids": "iu",
    "among": "b",
    "unsure": "b",
    "on_cut": "b",
    "in_tail": "b",
    "rivals": "iu",
    "claimed_rivals": "iu",
}
"""Kinds of numbers, as numpy names them, of the fields of a replay that aren't floats."""


def _misfit(name: str, values: Any, kind: str, shape: tuple[int, ...]) -> str | None:  # noqa: ANN401 - that is the question
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kind:
        what = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        return f"our reference engine could not decide: got {name} of {what}, expected numbers for each token"
    return (
        None if values.shape == shape else _partial(f"{name} of shape {values.shape}", f"{shape[0]} tokens")
    )


def _partial(got: str, expected: str) -> str:
    return f"our reference engine answered in part: got {got}, expected {expected}"


def _bad(name: str, values: NDArray[Any], good: Bools | np.bool_) -> str | None:
    if good.all():
        return None
    place = int(np.flatnonzero(~good)[0])
    return f"our reference engine could not decide: got {name} {values[place]} at position {place}"


def _between(values: NDArray[np.integer], least: int, most: int) -> Bools:
    inside: Bools = (values >= least) & (values <= most)
    return inside


def _whole(prompt_tokens: int, top_k: int, vocab_size: int) -> str | None:
    if prompt_tokens < 1 or not 0 <= top_k <= vocab_size:
        return f"our reference engine could not decide: got a prompt of {prompt_tokens} tokens, top_k {top_k}"
    return None
