"""Whether several reference engines say the same of one completion, and which of them to go by.

Honest engines never say quite the same: numbers are rounded, in another order on another machine. What honest engines
differ by is known (:mod:`targon.verification.reference`), and two replays *agree* if all of this holds:

1. Prompts are equally long, and as much of the vocabulary was seen.
2. Where either says that a draw was won by more than CLEAR_GAP, both name the same token; unless either is unsure of
   the candidates there, or the draw hangs on where a cut falls.
3. There, too, gaps and margins differ by CLEAR_GAP at most, in logits; those that are clipped count as the clip.
4. Log-probabilities differ by DRIFT at most.
5. What turns on rounding now and then differs at no more than a tenth of the positions, or one: which draw it was
   (another token, one in doubt, one that hangs on a cut, one that isn't a candidate: all of these together); a gap or
   margin by more than a HAIR; a log-probability by more than SOFT_DRIFT; which tokens are unlikely, and their mass; the
   classes of the leads.

An engine that lies beyond these bounds disagrees with every honest one. One that lies within them is not the one that
is gone by, as long as more of those that were heard are honest: of several that agree, that is the one in their midst
(:func:`midmost`). What such a lie can achieve where nobody else is heard, docs/oracle.md says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from targon.engines import Replayed
from targon.protocol.replay import MARGIN_CLIP
from targon.protocol.suspicions import LEAD_EDGES, SUSPICIONS
from targon.verification.reference import CLEAR_GAP, contradiction

SOFT_SHARE: Final = 0.1
"""Of the positions; what is soft may differ at so many, or at one."""

HAIR: Final = 0.25
"""Logits. Rounding moves few gaps and margins by more."""

SOFT_DRIFT: Final = 0.25
"""Nats. Rounding moves few log-probabilities by more."""

CLOSE: Final = 0.02
"""Logits and nats, over a completion's positions on average. Two that are this close leave nothing to choose."""

TAIL_SLACK: Final = 0.1
"""Of probability: by how much the mass of unlikely tokens may differ and still be the same."""

CLASS_SLACK: Final = 5
"""Leads are rounded as everything is: classes may be so far apart: 0.2 logits at the least around zero."""

T = TypeVar("T")


def apart(one: Replayed, other: Replayed, temperature: float) -> str | None:
    """By what two replays of one completion disagree, in words; None if they agree.

    Both must have been believed (:func:`targon.verification.reference.doubt_replayed`).

    Args:
        temperature: at which the tokens were asked for: sampled values are in units of it.
    """
    said = contradiction(one, other, temperature)
    if said is not None:
        return said
    scale = temperature or 1.0
    first, second = one.replay, other.replay
    sure = ~(first.unsure | second.unsure | first.on_cut | second.on_cut)
    clear = np.maximum(first.gaps, second.gaps) * scale > CLEAR_GAP
    turned = np.flatnonzero(sure & clear & (first.best_ids != second.best_ids))
    if turned.size:
        place = int(turned[0])
        return (
            f"token {first.best_ids[place]} at position {place} and token {second.best_ids[place]}, "
            f"gaps {first.gaps[place]:.2f} and {second.gaps[place]:.2f}"
        )
    both = sure & first.among & second.among
    for name, left, right, where in (
        ("gap", first.gaps, second.gaps, sure),
        ("margin", first.margins, second.margins, both),
    ):
        # near the clip, one may be clipped and the other not: then they differ by little
        far = np.flatnonzero(
            where & (np.abs(left - right) * scale > CLEAR_GAP) & (np.minimum(left, right) < MARGIN_CLIP)
        )
        if far.size:
            place = int(far[0])
            return f"{name} {left[place]:.2f} at position {place} and {right[place]:.2f}"
    count = first.gaps.size
    permitted = max(1, int(SOFT_SHARE * count))
    for name, differ in _soft(one, other, scale).items():
        if int(differ.sum()) > permitted:
            return (
                f"{name} differ at {int(differ.sum())} of {count} positions, expected at {permitted} at most"
            )
    return None


def distance(one: Replayed, other: Replayed, temperature: float) -> float:
    """How far two replays that agree lie apart: over their positions, on average, in logits and nats."""
    first, second = one.replay, other.replay
    scale = temperature or 1.0
    sums = np.zeros(first.gaps.size)
    for left, right in ((first.gaps, second.gaps), (first.margins, second.margins)):
        sums += np.minimum(np.abs(left - right) * scale, MARGIN_CLIP)
    sums += np.abs(_floored(one) - _floored(other))
    for name in ("best_ids", "rivals", "claimed_rivals", "among", "in_tail", "unsure", "on_cut"):
        sums += getattr(first, name) != getattr(second, name)
    return float(sums.mean())


def midmost(said: Sequence[T], apart_by: Callable[[T, T], float]) -> int:
    """The place of the one that lies in the midst of several: with the smallest sum of distances to the others.

    Of several that agree, it says what an honest one says if more of them are honest than lie: those who lie pull
    away from the others, and the others stay together. Among equals it is the first.
    """
    sums = [sum(apart_by(one, other) for other in said if other is not one) for one in said]
    return min(range(len(said)), key=sums.__getitem__)


def _floored(replayed: Replayed) -> NDArray[np.float64]:
    """The claimed tokens' log-probabilities, all of them finite: (positions,)."""
    return np.maximum(replayed.claimed_logprobs.astype(np.float64), -100.0)


def _soft(one: Replayed, other: Replayed, scale: float) -> dict[str, NDArray[np.bool_]]:
    """Where what may turn on rounding differs: (positions,) bool, by name."""
    first, second = one.replay, other.replay
    sure = ~(first.unsure | second.unsure | first.on_cut | second.on_cut)
    both_known = ~np.isnan(first.tail_mass) & ~np.isnan(second.tail_mass)
    with np.errstate(invalid="ignore"):
        tails = both_known & (np.abs(first.tail_mass - second.tail_mass) > TAIL_SLACK)
    shifts = np.arange(len(SUSPICIONS), dtype=np.uint32) * 4
    # no rival: one that lies behind the last edge, or none at all
    classes = [
        np.minimum(each.rivals.astype(np.uint32)[:, None] >> shifts & 15, len(LEAD_EDGES)).astype(np.int64)
        for each in (first, second)
    ]
    leads = (np.abs(classes[0] - classes[1]) > CLASS_SLACK).any(axis=1)
    return {
        # together, for each of them takes a position from what a prover is judged by
        "draws": (sure & (first.best_ids != second.best_ids))
        | (first.unsure != second.unsure)
        | (first.on_cut != second.on_cut)
        | (first.among != second.among),
        "gaps": sure & (np.abs(first.gaps - second.gaps) * scale > HAIR),
        "margins": sure
        & first.among
        & second.among
        & (np.abs(first.margins - second.margins) * scale > HAIR),
        "log-probabilities": np.abs(_floored(one) - _floored(other)) > SOFT_DRIFT,
        "unlikely tokens": first.in_tail != second.in_tail,
        "masses of unlikely tokens": tails | (np.isnan(first.tail_mass) != np.isnan(second.tail_mass)),
        "leads of rivals": leads,
        "claimed rivals": first.claimed_rivals != second.claimed_rivals,
    }


def agreeing(
    said: Sequence[T], needed: int, asked: int, apart_by: Callable[[T, T], str | None]
) -> tuple[int, ...] | None:
    """Whom to listen to: the largest set of answers that agree with one another, in order.

    Where ``needed`` is more than half of those asked, two sets that large share a member: so both hold an honest
    one, if fewer than ``needed`` lie. Where it isn't, two sets could stand against each other, and then nobody is
    believed.

    Args:
        needed: how many have to agree, from 1.
        asked: how many were.

    Returns:
        Places in ``said``, or None if too few agree.
    """
    edges = {
        (left, right)
        for left, right in combinations(range(len(said)), 2)
        if apart_by(said[left], said[right]) is None
    }
    found: list[tuple[int, ...]] = []
    for size in range(len(said), needed - 1, -1):
        found += [
            group
            for group in combinations(range(len(said)), size)
            if all(pair in edges for pair in combinations(group, 2))
            and not any(set(group) <= set(larger) for larger in found)
        ]
    if not found or (2 * needed <= asked and len(found) > 1):
        return None
    return found[0]
