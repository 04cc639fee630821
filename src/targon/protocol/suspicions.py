"""Ways of sampling that were not asked for, and what each would draw.

A prover that samples at another temperature than asked, or without the cuts, still uses the request's noise: so
what it would draw is known before the claimed token is looked at. Where that differs from what the request asks
for, or nearly does, a claim of just that token says far more than any mismatch.

The suspicions, in order:

1. the temperature is off by one of ``TEMPERATURE_OFFSETS``, down to ``MIN_TEMPERATURE``: the candidates stay those
   of the request, ordered by ``(logit / T' + g) · T'``;
2. top-k and top-p are ignored: all tokens that were seen, ordered by ``(s + g) · T``.

Of each, the *rival* is the first in that order that isn't the token to be drawn (ties to the lowest id), and the
*lead* is by how much the token to be drawn is ahead of it, in logits: negative, if the suspicion would draw the
rival. A rival within the last of ``LEAD_EDGES`` counts. At T = 0 there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from targon.protocol.sampler import MAX_NOISE, MIN_NOISE, MIN_TEMPERATURE, Floats, Ids

TEMPERATURE_OFFSETS: Final = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)

SUSPICIONS: Final = (*(f"T{offset:+g}" for offset in TEMPERATURE_OFFSETS), "no cut")
"""Their names, in order."""

LEAD_EDGES: Final = (-0.5, -0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2)
"""What divides leads into classes, in logits: class n lies below edge n, and not below the one before."""

FIRST_AHEAD: Final = LEAD_EDGES.index(0.0) + 1
"""Rivals of lower classes would be drawn, if the suspicion were true."""

NO_RIVAL: Final = 15
"""The class of a suspicion without a rival."""

REACH: Final = max(map(abs, TEMPERATURE_OFFSETS)) * (MAX_NOISE - MIN_NOISE) + LEAD_EDGES[-1]
"""In logits: a token that misses the best value by more is nobody's rival at any of the temperatures."""

NOBODY: Final = -1
"""Stands for a token where there is no rival."""

_SHIFTS: Final = tuple(4 * place for place in range(len(SUSPICIONS)))


class Rival(NamedTuple):
    """Who comes closest to the token to be drawn, if a suspicion is true."""

    token: int
    lead: float


NO_ONE: Final = Rival(NOBODY, np.inf)


def suspected_temperatures(temperature: float) -> tuple[float, ...]:
    """One for each of ``TEMPERATURE_OFFSETS``; 0.0 where there is no suspicion."""
    if temperature == 0.0:
        return (0.0,) * len(TEMPERATURE_OFFSETS)
    others = (temperature + offset for offset in TEMPERATURE_OFFSETS)
    return tuple(other if other >= MIN_TEMPERATURE else 0.0 for other in others)


def rival_of(best: int, ids: Ids, logits: Floats, noise: Floats, temperature: float) -> Rival:
    """The rival under one suspicion.

    Args:
        best: the token to be drawn.
        ids: ``(n,) int64``, tokens in increasing order, ``best`` among them; those within ``REACH`` suffice.
        logits: ``(n,) float64``, theirs, or log-probabilities.
        noise: ``(n,) float64``, theirs.
        temperature: the suspected one; 0.0: none.
    """
    if temperature == 0.0 or ids.size < 2:
        return NO_ONE
    values = logits / temperature + noise
    own = int(np.searchsorted(ids, best))
    mine, values[own] = values[own], -np.inf
    first = int(np.argmax(values))
    lead = float((mine - values[first]) * temperature)
    return Rival(int(ids[first]), lead) if lead < LEAD_EDGES[-1] else NO_ONE


def lead_code(rivals: Iterable[Rival]) -> int:
    """The classes of the leads of all suspicions as one number, four bits each, the first in the lowest."""
    edges = np.array(LEAD_EDGES)
    classes = (
        NO_RIVAL if rival.token == NOBODY else int(np.searchsorted(edges, rival.lead, side="right"))
        for rival in rivals
    )
    return sum(place << shift for place, shift in zip(classes, _SHIFTS, strict=True))


def claim_code(rivals: Iterable[Rival], claimed: int) -> int:
    """Bit n: the claimed token is the rival under suspicion n."""
    return sum((rival.token == claimed) << place for place, rival in enumerate(rivals))


def lead_classes(codes: NDArray[np.integer]) -> Ids:
    """``(positions, len(SUSPICIONS)) int64``: the classes in such numbers."""
    classes: Ids = (np.asarray(codes, np.int64)[:, None] >> np.array(_SHIFTS)) & 15
    return classes


def claimed_rivals_of(codes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """``(positions, len(SUSPICIONS))``: whether the claimed token is each suspicion's rival."""
    claimed: NDArray[np.bool_] = (np.asarray(codes, np.int64)[:, None] >> np.arange(len(SUSPICIONS))) & 1 > 0
    return claimed


def possible_codes(rivals: NDArray[np.integer], claimed_rivals: NDArray[np.integer]) -> NDArray[np.bool_]:
    """``(positions,)``: whether the codes are any that :func:`lead_code` and :func:`claim_code` make: no other
    classes than there are, and a claim only of a rival that there is."""
    codes, claims = rivals.astype(np.int64), claimed_rivals.astype(np.int64)
    classes, claimed = lead_classes(codes), claimed_rivals_of(claims)
    possible: NDArray[np.bool_] = (
        (codes >= 0)
        & (codes < 1 << 4 * len(SUSPICIONS))
        & (claims >= 0)
        & (claims < 1 << len(SUSPICIONS))
        & ((classes < len(LEAD_EDGES)) | (classes == NO_RIVAL)).all(axis=1)
        & ~(claimed & (classes == NO_RIVAL)).any(axis=1)
    )
    return possible


NO_RIVALS: Final = lead_code([NO_ONE] * len(SUSPICIONS))
"""The code where there is no rival under any suspicion."""
