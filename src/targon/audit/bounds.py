"""Bounds that a verifier keeps by itself, and that the fold doesn't hold it to.

* An interval is opened, and a step closed, in one of its own blocks: intervals are as long as the profile says.
* Blocks that were skipped begin with the next one, so that none is skipped twice, and no record is written for nothing.
* A prover is sent no more than its tier's requests in an interval.
* A user's request is drawn for at most ``MAX_TURNS`` times.
* Shares are such as :func:`targon.protocol.routing.shares` makes, and are written once a block.
"""

from __future__ import annotations

from typing import Any, Final

from targon.audit.faults import Faults
from targon.audit.lean import LeanAttempt
from targon.ledger import Attempt, RoutesSet, Standings
from targon.protocol import routing
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.schedule import interval_of
from targon.protocol.tiers import TIERS

OVER_LIMIT: Final = 2
"""Requests above its limit that a prover may be sent: a challenge and an inference of the verifier's own that were on
their way when it reached it."""
ROUTES_PER_BLOCK: Final = 3
"""Times that one model's shares may be written in a block: one that starts again does so once more."""


class Bounds:
    """Looks at records just before they are folded in."""

    def __init__(self, standings: Standings, faults: Faults) -> None:
        self._standings = standings
        self._faults = faults
        self._sent: dict[Hotkey, int] = {}
        self._limits: dict[Hotkey, int] = {}
        """By prover, of the tier with which it began the interval; a conviction lowers it only with the next."""
        self._routed: dict[str, tuple[Block, int]] = {}

    def attempt(self, seq: int, event: Attempt | LeanAttempt) -> None:
        prover = event.prover
        sent = self._sent[prover] = self._sent.get(prover, 0) + 1
        limit = self._limits.get(prover)
        if limit is None:
            standing = self._standings.prover(prover)
            limit = 0 if standing is None else TIERS[standing.tier].request_limit
            self._limits[prover] = limit
        if sent > limit + OVER_LIMIT:
            self._faults.add(
                "draw", seq, f"request {sent} to {prover} in one interval", f"at most {limit}, by its tier"
            )
        route = event.route
        if route is not None and route.turn >= routing.MAX_TURNS:
            self._faults.add("draw", seq, f"turn {route.turn}", f"one below {routing.MAX_TURNS}")

    def routes_set(self, seq: int, event: RoutesSet) -> None:
        said = dict(event.shares)
        if min(said.values(), default=1) < 1 or dict(routing.shares(said)) != said:
            self._faults.add(
                "draw",
                seq,
                f"shares from {min(said.values())} to {max(said.values())}",
                f"none below one part in {routing.LEAST_OF_MEDIAN} of their median, or above "
                f"{routing.MOST_OF_MEDIAN} times it",
            )
        block, times = self._routed.get(event.model, (event.block, 0))
        times = times + 1 if event.block <= block else 1
        self._routed[event.model] = max(block, event.block), times
        if times > ROUTES_PER_BLOCK:
            self._faults.add(
                "draw",
                seq,
                f"shares written {times} times by block {block}",
                "once a block, and as time goes on",
            )

    def interval_opened(self, seq: int, event: Any) -> None:  # noqa: ANN401 - of its kind
        self._in_its_interval(seq, event.block, event.interval, "opened")

    def interval_closed(self) -> None:
        self._sent.clear()
        self._limits.clear()

    def step_closed(self, seq: int, event: Any) -> None:  # noqa: ANN401 - of its kind
        if self._standings.interval is not None:
            self._in_its_interval(seq, event.block, self._standings.interval, "open in the step")

    def _in_its_interval(self, seq: int, block: Block, interval: int, what: str) -> None:
        length = self._standings.profile.interval_blocks
        expected = interval_of(block, length)
        if expected != interval:
            self._faults.add(
                "history",
                seq,
                f"interval {interval} {what} of block {block}",
                f"interval {expected}: each has {length} blocks",
            )

    def skipped(self, seq: int, event: Any) -> None:  # noqa: ANN401 - of its kind
        expected = self._standings.stepped_block + 1
        if event.first != expected:
            self._faults.add(
                "history", seq, f"blocks from {event.first} on skipped", f"from {expected} on, the next one"
            )
