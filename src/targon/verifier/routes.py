"""Among whom users' inferences are drawn, by which shares, and on whom one falls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from targon.chain import Axon
from targon.ledger import Event, RoutesSet, Standings
from targon.protocol import draws, routing
from targon.protocol.messages import Dialect
from targon.protocol.primitives import AttemptNumber, Block, Hotkey, Uid
from targon.protocol.tiers import TIERS
from targon.transport.errands import NobodyFree
from targon.verifier.asking import Moment
from targon.verifier.dialects import Offers, dialect_of_inference
from targon.verifier.journal import Journal
from targon.verifier.loads import Loads

SHARE_OF_LIMIT: Final = 0.9
"""Of a tier's requests per interval, users' inferences may use so many: the rest is left for challenges."""
BUSY_RETRY_S: Final = 2.0
"""When it may be worth to ask again where all are busy: about an answer's time."""
AT_LIMIT: Final = "at their tier's limit"
CHANGE: Final = 0.25
"""Shares are written anew once one of them is off by this part: less than that wouldn't be noticed."""


class Routes:
    """The shares of one model, kept in the log."""

    def __init__(
        self,
        journal: Journal,
        offers: Offers,
        loads: Loads,
        model: str,
        interval_left_s: Callable[[], float],
    ) -> None:
        """Set it up.

        Args:
            interval_left_s: how long the open interval goes on: then all may have requests again.
        """
        self._journal = journal
        self._offers = offers
        self._loads = loads
        self._model = model
        self._interval_left_s = interval_left_s
        self._axons: Mapping[Hotkey, Axon] = {}
        self._block: Block | None = None

    def seat(self, axons: Mapping[Hotkey, Axon]) -> None:
        """Who serves, and where, by the chain."""
        self._axons = dict(axons)

    @property
    def axons(self) -> Mapping[Hotkey, Axon]:
        """Who serves, and where."""
        return self._axons

    async def refresh(self, block: Block) -> None:
        """Write the shares of a block, at most once for each, if they differ much from those of the log."""
        if self._block == block or self._journal.standings.interval is None:
            return
        self._block = block
        offered = {
            prover: self._offers.capacity(prover, self._model, block)
            for prover in self._axons
            if self._journal.standings.prover(prover) is not None
        }
        self._loads.report({prover: capacity for prover, capacity in offered.items() if capacity > 0})

        def changed(_: int) -> list[Event]:
            standings = self._journal.standings
            shares = routing.shares(self._capacities(standings))
            if not _differ(standings.routes(self._model), dict(shares)):
                return []
            return [RoutesSet(block=block, model=self._model, shares=shares)]

        await self._journal.append_made(changed)

    def draw(
        self, attempt: AttemptNumber, temperature: float, moment: Moment, tried: Collection[Hotkey]
    ) -> tuple[int, Hotkey, Dialect]:
        """The turn, the prover and the dialect of a user's inference that is logged next.

        Raises:
            NobodyFree: if no prover takes it now.
        """
        standings = self._journal.standings
        found: dict[Uid, tuple[Hotkey, Dialect]] = {}
        passed: set[str] = set()

        def takes(uid: Uid) -> bool:
            standing = standings.holder(uid)
            if standing is None or standing.hotkey not in self._axons:
                passed.add("gone")
            elif standing.hotkey in tried:
                passed.add("asked already")
            elif standing.sent >= SHARE_OF_LIMIT * TIERS[standing.tier].request_limit:
                passed.add(AT_LIMIT)
            elif not self._loads.has_room(standing.hotkey):
                passed.add("busy")
            else:
                offered = self._offers.of(standing.hotkey, moment.block)
                dialect = dialect_of_inference(offered, temperature, standing.score)
                if dialect is not None:
                    found[uid] = standing.hotkey, dialect
                    return True
                passed.add("without a sampler for it")
            return False

        shares = tuple(standings.routes(self._model).items())
        drawn = draw_route(moment.secret, attempt, shares, takes)
        if drawn is None:
            why = f"of {len(shares)}, all are {', '.join(sorted(passed))}" if shares else "none serves"
            retry_s = self._interval_left_s() if passed == {AT_LIMIT} else BUSY_RETRY_S
            raise NobodyFree(f"no prover can take the request now: {why}", retry_s)
        turn, uid = drawn
        return turn, *found[uid]

    def _capacities(self, standings: Standings) -> dict[Uid, int]:
        found: dict[Uid, int] = {}
        for prover in self._axons:
            standing, window = standings.prover(prover), self._loads.window(prover)
            if standing is not None and standing.uid is not None and window > 0:
                found[standing.uid] = window
        return found


def _differ(old: Mapping[Uid, int], new: Mapping[Uid, int]) -> bool:
    if old.keys() != new.keys():
        return True
    return any(abs(new[uid] - share) > max(1.0, CHANGE * share) for uid, share in old.items())


def draw_route(
    secret: bytes,
    attempt: AttemptNumber,
    shares: Collection[tuple[Uid, int]],
    takes: Callable[[Uid], bool],
) -> tuple[int, Uid] | None:
    """The first turn whose draw falls on a prover that takes the request, and that prover; None: there is none.

    Args:
        takes: whether a prover can take it now; asked once for each.
    """
    known: dict[Uid, bool] = {}
    for turn in range(routing.MAX_TURNS if shares else 0):
        uid = routing.pick(draws.route_draw(secret, attempt, turn), shares)
        if uid not in known:
            known[uid] = takes(uid)
            if not any(known.values()) and len(known) == len(shares):
                return None
        if known[uid]:
            return turn, uid
    return None
