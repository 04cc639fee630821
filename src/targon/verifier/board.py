"""Oracles around a table: asked together, and heard as enough of them agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
import structlog
from anyio import to_thread

from targon.engines import EngineUnavailable, TaskRefused
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Hotkey
from targon.protocol.references import ReferenceAnswer, ReferenceTask
from targon.verification.agreement import CLOSE, agreeing, midmost
from targon.verifier.lenders import Faulty, Lender, Lenders
from targon.verifier.told import Told

T = TypeVar("T")

logger = structlog.get_logger(__name__)

GRACE_S: Final = 1.0
"""Once enough agree, the others have so long to be heard: to be found out, if they lie."""
DOUBT_S: Final = 10.0
"""The same, where those who agree do so by no more than rounding may explain: who lies within that is found by who else
is heard."""

Compare = Callable[[Any, Any], str | None]
"""By what two of several disagree, in words; None if they agree."""
Distance = Callable[[Any, Any], float]
"""How far two lie apart that agree."""


@dataclass(frozen=True, slots=True)
class Said:
    """One oracle's answer, and what is compared of it."""

    lender: Lender
    answer: ReferenceAnswer
    value: Any


class Board:
    """Asks, compares, and says who is believed, who was outvoted, and when nobody can be.

    Args:
        needed: how many have to agree.
        told: where to keep what they say of replays.
    """

    def __init__(self, lenders: Lenders, needed: int, told: Told | None) -> None:
        self._lenders = lenders
        self._told = told
        self._lost = False
        self.needed = needed

    async def first(
        self, task: ReferenceTask, fault: Callable[[ReferenceAnswer], str | None]
    ) -> ReferenceAnswer:
        """The answer of one oracle: the first in order that gives a good one.

        Args:
            fault: what is wrong with an answer, in words; None: nothing.

        Raises:
            TaskRefused: if all that answer say that it can't be done.
            EngineUnavailable: if none gives a good one.
        """
        troubles: list[str] = []
        refusals: list[TaskRefused] = []
        for lender in self._lenders.awake(1, task.kind):
            try:
                answer = await self._lenders.ask(lender, task)
            except TaskRefused as error:
                refusals.append(error)
                continue
            except EngineUnavailable as error:
                troubles.append(str(error))
                continue
            wrong = fault(answer)
            if wrong is not None:
                self._lenders.count(lender.hotkey, "faulty")
                logger.warning("oracle_faulty", oracle=lender.hotkey, error=wrong)
                troubles.append(f"oracle {lender.hotkey}: {wrong}")
                continue
            self._lenders.count(lender.hotkey, "agreed")
            return answer
        if refusals and not troubles:
            raise refusals[0]
        raise EngineUnavailable(f"no oracle answers: {'; '.join([*troubles, *map(str, refusals)])}")

    async def agreed(
        self,
        task: ReferenceTask,
        read: Callable[[ReferenceAnswer], Any],
        compare: Compare,
        distance: Distance | None = None,
    ) -> Any:  # noqa: ANN401 - what is read
        """What those say who agree: of the one in their midst, or the first in order of preference among equals.

        Args:
            read: what is to be compared of an answer; raises ``MalformedMessage`` if it is no good.
            compare: by what two of them disagree; None if they agree.
            distance: how far two of them lie apart that agree; None: those that agree are equal.

        Raises:
            TaskRefused: if as many say that it can't be done.
            EngineUnavailable: if too few agree.
        """
        asked = self._lenders.awake(self.needed, task.kind)
        said: dict[int, Said] = {}
        refusals: list[TaskRefused] = []
        troubles: list[str] = []
        settled, clear, everyone = anyio.Event(), anyio.Event(), anyio.Event()
        heard: set[Hotkey] = set()
        compare = _remembered(compare)
        distance = _remembered(distance) if distance is not None else _none

        async def ask(place: int, lender: Lender) -> None:
            try:
                answer = await self._lenders.ask(lender, task)
                said[place] = Said(lender, answer, read(answer))
            except TaskRefused as error:
                refusals.append(error)
            except MalformedMessage as error:
                self._lenders.count(lender.hotkey, "faulty")
                troubles.append(f"oracle {lender.hotkey}: {error}")
            except EngineUnavailable as error:
                if isinstance(error, Faulty):
                    logger.warning("oracle_faulty", oracle=lender.hotkey, error=str(error))
                troubles.append(str(error))
            heard.add(lender.hotkey)
            group = self._group(said, compare)
            if group is not None or len(refusals) >= self.needed:
                settled.set()
            if len(refusals) >= self.needed or (group is not None and self._close(said, group, distance)):
                clear.set()

        async def hear() -> None:
            async with anyio.create_task_group() as askers:
                for place, lender in enumerate(asked):
                    askers.start_soon(ask, place, lender)
            for event in (settled, clear, everyone):
                event.set()

        async with anyio.create_task_group() as hearing:
            hearing.start_soon(hear)
            await settled.wait()
            with anyio.move_on_after(DOUBT_S):
                await clear.wait()
            with anyio.move_on_after(GRACE_S):
                await everyone.wait()
            hearing.cancel_scope.cancel()
        for lender in asked:
            if lender.hotkey not in heard:
                self._lenders.silent(lender, task.kind)
        group = await self._settle(task, said, refusals, troubles, compare)
        values = [said[place].value for place in group]
        return values[midmost(values, distance)]

    def _close(self, said: dict[int, Said], group: tuple[int, ...], distance: Distance) -> bool:
        """Whether enough of those who agree leave nothing to choose between them."""
        values = [said[place].value for place in group]
        middle = values[midmost(values, distance)]
        return sum(other is middle or distance(middle, other) <= CLOSE for other in values) >= self.needed

    def _group(self, said: dict[int, Said], compare: Compare) -> tuple[int, ...] | None:
        places = sorted(said)
        group = agreeing(
            [said[place].value for place in places], self.needed, len(self._lenders.lenders), compare
        )
        return None if group is None else tuple(places[one] for one in group)

    async def _settle(
        self,
        task: ReferenceTask,
        said: dict[int, Said],
        refusals: list[TaskRefused],
        troubles: list[str],
        compare: Compare,
    ) -> tuple[int, ...]:
        """The places of those who agree; raises as :meth:`agreed` does."""
        group = self._group(said, compare)
        if task.kind == "replay" and self._told is not None and said:
            await self._keep(task, [said[place].answer for place in sorted(said)])
        if group is None:
            majority = 2 * self.needed > len(self._lenders.lenders)
            if len(refusals) >= self.needed and (majority or not said):
                raise refusals[0]
            raise EngineUnavailable(self._disagreement(said, refusals, troubles, compare))
        for place in sorted(said):
            one = said[place]
            self._lenders.count(one.lender.hotkey, "agreed" if place in group else "outvoted")
            if place not in group:
                logger.warning(
                    "oracle_outvoted",
                    oracle=one.lender.hotkey,
                    asked=task.kind,
                    others=[said[other].lender.hotkey for other in group],
                    said=compare(said[group[0]].value, one.value) or "what others contradict",
                )
        if self._lost:
            self._lost = False
            logger.info("reference_found", oracles=[said[place].lender.hotkey for place in group])
        return group

    def _disagreement(
        self,
        said: dict[int, Said],
        refusals: list[TaskRefused],
        troubles: list[str],
        compare: Compare,
    ) -> str:
        """Why nobody is believed; said aloud when it begins."""
        places = sorted(said)
        parts = [
            f"oracles {said[one].lender.hotkey} and {said[other].lender.hotkey} contradict each other: {why}"
            for number, one in enumerate(places)
            for other in places[number + 1 :]
            if (why := compare(said[one].value, said[other].value)) is not None
        ]
        parts += [*map(str, refusals), *troubles]
        reason = (
            f"of {len(self._lenders.lenders)} oracles, {len(said)} answered, and no {self.needed} agree: "
            f"{'; '.join(parts) or 'too few were asked'}"
        )
        if not self._lost:
            self._lost = True
            logger.warning("reference_lost", effect="verdicts are inconclusive", reason=reason)
        return reason

    async def _keep(self, task: ReferenceTask, answers: list[ReferenceAnswer]) -> None:
        assert self._told is not None  # asked for before
        try:
            await to_thread.run_sync(self._told.keep, task, answers)
        except OSError as error:
            logger.warning("told_not_kept", error=str(error))


def _none(_one: object, _other: object) -> float:
    return 0.0


def _remembered(apart_by: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    """The same, which looks at each pair of values once. The values have to live as long as it."""
    known: dict[tuple[int, int], T] = {}

    def look(one: object, other: object) -> T:
        pair = id(one), id(other)
        if pair not in known:
            known[pair] = apart_by(one, other)
        return known[pair]

    return look


def unequal(one: object, other: object) -> str | None:
    """By what two values differ, in words; None if they are equal."""
    if one == other:
        return None
    named = [value if len(value := str(each)) <= 200 else f"SHA-256 {_sha(value)}" for each in (one, other)]
    return f"{named[0]}, and {named[1]}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
