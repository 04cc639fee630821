"""How users' requests are shared out among provers: in proportion to what each can take, by a draw.

A verifier's log holds each model's *shares* from time to time. The prover of a request follows from them and from the
draws of :func:`targon.protocol.draws.route_draw`: turn 0 falls on a prover; if that one is busy, at its limit or was
asked already, turn 1 falls on another, and so on. The log says which turn it was, so that whoever audits it sees both
that the prover was the drawn one, and how often each was passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median_low
from typing import Final

from targon.protocol.primitives import Uid

LEAST_OF_MEDIAN: Final = 8
"""No prover that serves has a smaller share than one part in this many of the median: whoever is new must be able to
show what it can do."""

MOST_OF_MEDIAN: Final = 4
"""No prover has a larger share than this many times the median: what it says of itself must not bring it everything.
(The mean would rise with what one prover says; the median doesn't.)"""

MAX_TURNS: Final = 64
"""Draws after which a verifier gives up: then nearly everybody was busy."""


def shares(capacities: Mapping[Uid, int]) -> tuple[tuple[Uid, int], ...]:
    """Every prover's share, in UID order.

    Args:
        capacities: how many requests each takes at once, at least 1; a verifier measures it.

    Raises:
        ValueError: if a capacity is below 1.
    """
    if not capacities:
        return ()
    if min(capacities.values()) < 1:
        raise ValueError(f"got capacities {dict(capacities)}, expected at least 1 each")
    median = median_low(capacities.values())
    least, most = -(-median // LEAST_OF_MEDIAN), median * MOST_OF_MEDIAN
    return tuple((uid, min(max(capacities[uid], least), most)) for uid in sorted(capacities))


def pick(draw: int, table: Iterable[tuple[Uid, int]]) -> Uid:
    """The prover on whom a 64-bit draw falls: the one in whose part of the shares, laid end to end in their order,
    ``floor(draw · total / 2⁶⁴)`` lies.

    Raises:
        ValueError: if there are no shares.
    """
    entries = list(table)
    place = draw * sum(share for _, share in entries) >> 64
    for uid, share in entries:
        if place < share:
            return uid
        place -= share
    raise ValueError("got no shares, expected at least one")
