"""The line before the engine: bounded, by stake, fair among equals."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st

from targon.prover.stake_queue import StakeQueue
from targon.transport import Refusal, Refused
from tests.prover.world import MINNOW, VERIFIER, WHALE, CountingEngine, World, a_prover

pytestmark = pytest.mark.anyio


class Askers:
    """Several callers at once, and what became of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.served: list[str] = []
        self.refused: dict[str, Refused] = {}

    async def ask(self, name: str, signer: Keypair) -> None:
        try:
            await self._world.client.generate(self._world.axon, self._world.request(verifier=signer), signer)
            self.served.append(name)
        except Refused as error:
            self.refused[name] = error


async def test_whoever_has_more_stake_is_served_first() -> None:
    engine = CountingEngine()
    engine.hold, engine.pause_s = anyio.Event(), 0.02
    async with a_prover(engine=engine, max_running=1) as world, anyio.create_task_group() as tasks:
        askers = Askers(world)
        tasks.start_soon(askers.ask, "first", MINNOW)
        await world.until_running(1)
        for place, (name, signer) in enumerate(
            [("minnow", MINNOW), ("verifier", VERIFIER), ("whale", WHALE), ("minnow again", MINNOW)], start=1
        ):
            tasks.start_soon(askers.ask, name, signer)
            await world.until_waiting(place)
        engine.hold.set()

    assert askers.served == ["first", "whale", "verifier", "minnow", "minnow again"]


async def test_a_full_queue_refuses_a_caller_with_no_more_stake_than_the_last() -> None:
    engine = CountingEngine()
    engine.hold = anyio.Event()
    async with (
        a_prover(engine=engine, max_running=1, max_queue=1) as world,
        anyio.create_task_group() as tasks,
    ):
        askers = Askers(world)
        tasks.start_soon(askers.ask, "running", MINNOW)
        await world.until_running(1)
        tasks.start_soon(askers.ask, "waiting", VERIFIER)
        await world.until_waiting(1)

        await askers.ask("late", VERIFIER)
        engine.hold.set()

    late = askers.refused["late"]
    assert (late.status, late.code) == (503, "queue_full")
    assert late.retry_after_s is not None
    assert askers.served == ["running", "waiting"]


async def test_a_full_queue_gives_the_last_place_to_a_caller_with_more_stake() -> None:
    engine = CountingEngine()
    engine.hold = anyio.Event()
    async with (
        a_prover(engine=engine, max_running=1, max_queue=2) as world,
        anyio.create_task_group() as tasks,
    ):
        askers = Askers(world)
        tasks.start_soon(askers.ask, "running", MINNOW)
        await world.until_running(1)
        for place, (name, signer) in enumerate([("minnow", MINNOW), ("verifier", VERIFIER)], start=1):
            tasks.start_soon(askers.ask, name, signer)
            await world.until_waiting(place)

        tasks.start_soon(askers.ask, "whale", WHALE)
        with anyio.fail_after(2):
            while "minnow" not in askers.refused:
                await anyio.sleep(0.005)
        engine.hold.set()

    evicted = askers.refused["minnow"]
    assert (evicted.status, evicted.code) == (503, "evicted")
    assert evicted.retry_after_s is not None
    assert askers.served == ["running", "whale", "verifier"]


async def test_whoever_waits_too_long_is_told() -> None:
    engine = CountingEngine()
    engine.hold = anyio.Event()
    async with (
        a_prover(engine=engine, max_running=1, max_wait_s=0.2) as world,
        anyio.create_task_group() as tasks,
    ):
        askers = Askers(world)
        tasks.start_soon(askers.ask, "running", VERIFIER)
        await world.until_running(1)

        await askers.ask("waiting", WHALE)
        engine.hold.set()

    assert askers.refused["waiting"].code == "waited_too_long"


async def test_a_queue_without_places_refuses_at_once() -> None:
    queue = StakeQueue(slots=1, places=0, max_wait_s=1.0)
    async with queue.slot(1.0):
        with pytest.raises(Refusal, match="queue_full"):
            async with queue.slot(100.0):
                pass


async def test_a_slot_that_was_given_to_somebody_who_just_left_is_passed_on() -> None:
    queue = StakeQueue(slots=1, places=5, max_wait_s=5.0)
    served = anyio.Event()

    async def patient() -> None:
        async with queue.slot(1.0):
            served.set()

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def leaves() -> None:
            with scope:
                async with queue.slot(9.0):
                    await anyio.sleep(60)

        async with queue.slot(5.0):
            tasks.start_soon(leaves)
            tasks.start_soon(patient)
            while queue.waiting < 2:
                await anyio.lowlevel.checkpoint()
        # The slot is the leaver's now, who has not run yet.
        scope.cancel()
        with anyio.fail_after(1):
            await served.wait()

    assert (queue.running, queue.waiting) == (0, 0)


@given(stakes=st.lists(st.integers(0, 5), min_size=1, max_size=30), places=st.integers(0, 8))
def test_those_who_wait_are_always_those_with_most_stake_and_are_served_in_that_order(
    stakes: list[int], places: int
) -> None:
    served: list[tuple[float, int]] = []
    refused: list[tuple[float, int]] = []

    async def caller(queue: StakeQueue, stake: int, number: int) -> None:
        try:
            async with queue.slot(float(stake)):
                served.append((-stake, number))
        except Refusal:
            refused.append((-stake, number))

    async def world() -> None:
        queue = StakeQueue(slots=1, places=places, max_wait_s=60.0)
        async with anyio.create_task_group() as tasks, queue.slot(0.0):
            for number, stake in enumerate(stakes):
                tasks.start_soon(caller, queue, stake, number)
                for _ in range(4):
                    await anyio.lowlevel.checkpoint()
                assert queue.waiting <= places
        assert (queue.running, queue.waiting) == (0, 0)

    anyio.run(world)

    everyone = sorted((-stake, number) for number, stake in enumerate(stakes))
    assert served == everyone[:places]
    assert sorted(refused) == everyone[places:]
