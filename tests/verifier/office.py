"""A running verifier's desk, and somebody who takes errands there and runs them over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from targon.ledger import Answered, Attempt, Event, Verdict
from targon.protocol.messages import ChatMessage
from targon.protocol.orders import Order
from targon.transport import Answer, NeuronClient
from targon.transport.errands import (
    Errand,
    NobodyFree,
    NotReady,
    Settled,
)
from targon.verifier.desk import Desk
from tests.verifier.conftest import VERIFIER, World

SECRET_WORDS = "the heron stands in the reeds at dusk"


def order(content: str = SECRET_WORDS, **changes: Any) -> Order:
    return Order(
        **{
            "model": "tiny",
            "messages": (ChatMessage(role="user", content=content),),
            "temperature": 1.0,
            "max_tokens": 32,
        }
        | changes
    )


@dataclass
class Office:
    """A running verifier's desk, and a client for its errands."""

    world: World
    desk: Desk
    client: NeuronClient

    async def take(self, **changes: Any) -> Errand:
        """An errand, as soon as somebody serves."""
        while True:
            try:
                return await self.desk.take(order(**changes))
            except (NobodyFree, NotReady):
                await anyio.sleep(0.05)

    async def send(self, errand: Errand) -> Answer:
        return await self.client.generate(errand.axon, errand.request, VERIFIER)

    async def serve(self, **changes: Any) -> tuple[Errand, Settled]:
        errand = await self.take(**changes)
        return errand, await self.desk.answered(errand, await self.send(errand))

    async def events_until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        while True:
            events = await self.world.events()
            if enough(events):
                return events
            await anyio.sleep(0.05)

    async def is_audited(self, settled: Settled) -> bool:
        record = (await self.world.events())[settled.record]
        assert isinstance(record, Answered)
        return record.audited

    async def verdict_on(self, errand: Errand) -> Verdict:
        number = errand.request.attempt_number

        def of(events: list[Event]) -> list[Verdict]:
            return [e for e in events if isinstance(e, Verdict) and e.attempt == number]

        return of(await self.events_until(lambda events: bool(of(events))))[0]


@asynccontextmanager
async def office(world: World) -> AsyncGenerator[Office]:
    """A verifier that runs while the block lasts."""
    with anyio.fail_after(40):
        async with world.verifier() as verifier, NeuronClient() as client, anyio.create_task_group() as group:
            group.start_soon(verifier.run)
            yield Office(world, verifier.desk, client)
            verifier.stop()


def routed(events: list[Event]) -> dict[int, Attempt]:
    """Users' inferences, by attempt."""
    return {at: e for at, e in enumerate(events) if isinstance(e, Attempt) and e.route is not None}


def own_inferences(events: list[Event]) -> dict[int, Attempt]:
    inferences = {at: e for at, e in enumerate(events) if isinstance(e, Attempt) and e.purpose == "inference"}
    return {at: event for at, event in inferences.items() if event.route is None}
