"""A prover that is asked to stop: what it has begun ends well, and nothing new begins."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

from targon.protocol import receipts
from targon.prover import Prover, ProverSettings
from targon.transport import Code, NeuronClient, Refused
from tests.prover.world import PROVER, VERIFIER, CountingEngine, MemoryChain, World

pytestmark = pytest.mark.anyio


async def test_what_runs_gets_its_receipt_and_what_comes_is_sent_away() -> None:
    engine, chain, registry = CountingEngine(), MemoryChain(), CollectorRegistry()
    engine.hold = anyio.Event()
    prover = Prover(
        engine=engine, chain=chain, signer=PROVER, settings=ProverSettings(port=0), registry=registry
    )
    ended = anyio.Event()

    async def run(*, task_status: TaskStatus[object]) -> None:
        await prover.run(task_status=task_status)
        ended.set()

    async with NeuronClient() as client, anyio.create_task_group() as tasks:
        axon = await tasks.start(lambda task_status: run(task_status=task_status))
        world = World(axon, chain, engine, registry, client)
        assert prover.ailing() is None
        request = world.request(max_tokens=3)
        answers = []

        async def ask() -> None:
            answers.append(await client.generate(axon, request, VERIFIER))

        tasks.start_soon(ask)
        await world.until_running(1)
        prover.stop()
        with anyio.fail_after(5):
            while (await client.status(axon, request.prover, VERIFIER)).capacity:
                await anyio.sleep(0.01)
        with pytest.raises(Refused) as caught:
            await client.generate(axon, world.request(attempt="00000000000000ff"), VERIFIER)
        assert caught.value.code == Code.OVERLOADED
        assert not ended.is_set()
        engine.hold.set()
        with anyio.fail_after(5):
            await ended.wait()
    receipts.check(answers[0].response.receipt, request, answers[0].response.completion)


async def test_a_prover_with_nothing_to_do_ends_at_once() -> None:
    prover = Prover(
        engine=CountingEngine(), chain=MemoryChain(), signer=PROVER, settings=ProverSettings(port=0)
    )
    assert prover.ailing() == "it doesn't serve yet"
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: prover.run(task_status=task_status))
            prover.stop()
