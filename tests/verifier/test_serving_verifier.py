"""A whole verifier that serves while it verifies: started, restarted, stopped, and what its operator sees."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import Axon
from targon.ledger import SqliteLog, StepClosed, Verdict, WeightsSet
from targon.protocol.primitives import Hotkey
from targon.transport import Limits, NeuronClient, PortInUse, bind, bound_port
from targon.verifier import AxonSettings, Verifier
from tests.tiny_engine import TinyEngine
from tests.transport.world import Reply, head, send_raw
from tests.verifier.conftest import VERIFIER, World
from tests.verifier.shop import get

pytestmark = pytest.mark.anyio

ME = Hotkey(VERIFIER.ss58_address)
HONEST = Keypair.create_from_uri("//Honest")


@dataclass
class Running:
    """A verifier at work, and where it serves."""

    verifier: Verifier
    axon: Axon | None
    client: NeuronClient

    @property
    def place(self) -> Axon:
        assert self.axon is not None
        return self.axon


@asynccontextmanager
async def running(world: World) -> AsyncGenerator[Running]:
    async with world.verifier() as verifier, NeuronClient() as client, anyio.create_task_group() as group:
        axon = await group.start(lambda task_status: verifier.run(task_status=task_status))
        yield Running(verifier, axon, client)
        verifier.stop()


async def until_closed(world: World, steps: int) -> None:
    with anyio.fail_after(30):
        while sum(isinstance(event, StepClosed) for event in await world.events()) < steps:
            await anyio.sleep(0.1)


def a_free_port() -> int:
    with bind("127.0.0.1", 0) as free:
        return bound_port(free)


async def seen(port: int, path: str) -> Reply:
    return await send_raw(port, head({}, method="GET", path=path))


@pytest.fixture
def serving(world: World) -> World:
    world.axon = AxonSettings(port=0)
    return world


async def test_a_verifier_at_work_tells_a_prover_why_it_stands_where_it_stands(serving: World):
    async with serving.prover("Honest", TinyEngine(wrong=True)), running(serving) as here:
        await until_closed(serving, 2)
        standing = await here.client.standing(here.place, ME, HONEST)
        status = await here.client.verifier_status(here.place, ME, HONEST)
    assert standing.last_verdict is not None
    assert (standing.last_verdict.outcome, standing.last_verdict.method) == ("fail", "divergence")
    (judged,) = [r.event for r in await serving.records() if r.seq == standing.last_verdict.seq]
    assert isinstance(judged, Verdict)
    assert standing.last_verdict.reason == judged.reason
    assert "the sampler draws" in judged.reason or "the model goes on" in judged.reason
    assert (standing.prover, standing.score) == (HONEST.ss58_address, 0.0)
    assert standing.successes <= 1, "an answer under audit is shown as a success until its verdict"
    assert status.block >= standing.block
    metagraph = await serving.chain.metagraph()
    me = metagraph.by_hotkey(ME)
    assert me is not None
    assert me.axon == here.place


async def test_the_log_comes_out_once_its_weights_stand_and_a_restart_changes_nothing(serving: World):
    async with serving.prover("Honest"):
        async with running(serving) as here:
            with anyio.fail_after(60):
                while not any(isinstance(event, WeightsSet) for event in await serving.events()):
                    await anyio.sleep(0.1)
                while not (await here.client.verifier_status(here.place, ME, HONEST)).released:
                    await anyio.sleep(0.1)
            before = [r async for r in here.client.released_records(here.place, ME, HONEST)]
        async with running(serving) as here:
            after = [r async for r in here.client.released_records(here.place, ME, HONEST)]
            status = await here.client.verifier_status(here.place, ME, HONEST)
    log = await SqliteLog.open(serving.log_path, read_only=True)
    stored = [record.hash async for record in log.read()]
    await log.aclose()
    assert before
    assert [record.hash for record in after] == stored[: len(after)]
    assert after[: len(before)] == before
    assert status.released_head == stored[status.released - 1]


async def test_a_verifier_that_is_stopping_says_so_until_no_attempt_is_open(
    serving: World, monkeypatch: pytest.MonkeyPatch
):
    closing, go_on = anyio.Event(), anyio.Event()

    async def close(*_: object) -> None:
        if serving.log_path.exists() and stopping:
            closing.set()
            await go_on.wait()

    monkeypatch.setattr("targon.verifier.role.close_open_attempts", close)
    stopping = False
    await serving.offline_prover("Honest")
    async with running(serving) as here:
        assert not (await here.client.verifier_status(here.place, ME, HONEST)).draining
        stopping = True
        here.verifier.stop()
        with anyio.fail_after(10):
            await closing.wait()
            assert (await here.client.verifier_status(here.place, ME, HONEST)).draining
        go_on.set()


async def test_a_port_in_use_is_an_error_before_anything_else_is_started(world: World):
    with bind("127.0.0.1", 0) as taken:
        world.axon = AxonSettings(port=bound_port(taken))
        async with world.verifier() as verifier:
            with pytest.raises(PortInUse, match=rf"{bound_port(taken)}.*--axon\.port"):
                await verifier.run()
    assert await world.events() == []


async def test_an_operators_port_in_use_is_named_by_its_own_flag(world: World):
    with bind("127.0.0.1", 0) as taken:
        world.metrics_port = bound_port(taken)
        async with world.verifier() as verifier:
            with pytest.raises(PortInUse, match=r"--metrics\.port"):
                await verifier.run()


async def test_without_an_axon_nothing_is_served_and_nothing_announced(world: World):
    await world.offline_prover("Honest")
    async with running(world) as here:
        await until_closed(world, 1)
        assert here.axon is None
    me = (await world.chain.metagraph()).by_hotkey(ME)
    assert me is not None
    assert me.axon is None


async def test_a_stopped_verifier_frees_its_ports(serving: World):
    serving.metrics_port = a_free_port()
    async with running(serving) as here:
        port = here.place.port
    for freed in (port, serving.metrics_port):
        with bind("127.0.0.1", freed) as sock:
            assert bound_port(sock) == freed


async def _weights_are_set_after_two_steps(serving: World) -> bool:
    kinds = [event.kind for event in await serving.events()]
    return (
        "weights_set" in kinds and kinds.count("step_closed") >= 3
    )  # the third: the second was counted, too


async def test_the_operators_port_shows_figures_of_the_work_and_of_the_log(serving: World):
    serving.metrics_port = a_free_port()
    async with (
        serving.prover("Honest"),
        serving.prover("Cheat", TinyEngine(wrong=True)),
        running(serving) as here,
    ):
        with anyio.fail_after(60):
            while not await _weights_are_set_after_two_steps(serving):
                await anyio.sleep(0.1)
        await here.client.verifier_status(here.place, ME, HONEST)
        figures = (await seen(serving.metrics_port, "/metrics")).body.decode()
        assert (await seen(here.place.port, "/metrics")).status == 404
    values = dict(line.rsplit(" ", 1) for line in figures.splitlines() if not line.startswith("#"))
    assert float(values["targon_verifier_blocks_handled_total"]) >= 2
    assert float(values["targon_verifier_step_seconds_count"]) >= 2
    assert float(values['targon_verifier_verdicts_total{outcome="pass"}']) >= 1
    assert float(values['targon_verifier_verdicts_total{outcome="fail"}']) >= 1
    assert sum(float(values[name]) for name in values if name.startswith("targon_verifier_provers")) == 2
    assert float(values["targon_verifier_log_head_seq"]) > 10
    assert float(values["targon_verifier_log_released"]) > 0
    assert 0 <= float(values["targon_verifier_weights_age_blocks"]) < 100
    assert "targon_verifier_open_attempts" in values
    assert "targon_verifier_anchored_interval" in values
    assert "targon_verifier_blocks_skipped_total" in values
    assert values['targon_requests_admitted_total{path="/v1/status"}'] == "1.0"


async def test_a_query_makes_no_metric_of_its_own(serving: World):
    serving.metrics_port = a_free_port()
    async with running(serving) as here:
        assert (await send_raw(here.place.port, get("/v1/log?start=0", VERIFIER))).status == 200
        figures = (await seen(serving.metrics_port, "/metrics")).body.decode()
    assert 'targon_requests_admitted_total{path="/v1/log"} 1.0' in figures
    assert "start=" not in figures


async def test_a_verifier_whose_steps_do_not_close_is_ailing_and_recovers(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("targon.verifier.metrics.STALLED_BLOCKS", 6)
    world.metrics_port = a_free_port()
    async with world.prover("Honest"), running(world):
        await until_closed(world, 1)
        assert await health(world) == (200, "ok")
        world.reference.down = True
        with anyio.fail_after(30):
            while (await health(world))[0] == 200:
                await anyio.sleep(0.1)
        assert re.search(r"no step has closed for \d+ blocks, expected one in 6", (await health(world))[1])
        world.reference.down = False
        with anyio.fail_after(30):
            while (await health(world))[0] != 200:
                await anyio.sleep(0.1)


async def test_a_log_that_takes_nothing_is_ailing(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("targon.verifier.metrics.UNWRITTEN_S", 0.2)
    world.metrics_port = a_free_port()
    go_on, write = anyio.Event(), SqliteLog.write

    async def stuck(*arguments: object, **named: object) -> None:
        if holding:
            await go_on.wait()
        await write(*arguments, **named)

    holding = False
    monkeypatch.setattr(SqliteLog, "write", stuck)
    await world.offline_prover("Honest")
    async with running(world):
        await until_closed(world, 1)
        holding = True
        with anyio.fail_after(20):
            while (await health(world))[0] == 200:
                await anyio.sleep(0.1)
        assert "the log takes nothing" in (await health(world))[1]
        go_on.set()


async def test_a_chain_that_fell_silent_is_ailing(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("targon.verifier.metrics.MAX_AGE_S", -1.0)
    world.metrics_port = a_free_port()
    async with running(world):
        status, trouble = await health(world)
    assert status == 503
    assert "the chain brought no new block" in trouble


async def health(world: World) -> tuple[int, str]:
    assert world.metrics_port is not None
    reply = await seen(world.metrics_port, "/healthz")
    return reply.status, json.loads(reply.body)["status"]


def test_a_verifier_gives_each_caller_less_than_a_prover_does():
    ours, theirs = AxonSettings().limits, Limits()
    assert ours.per_hotkey.per_second < theirs.per_hotkey.per_second
    assert ours.max_concurrent < theirs.max_concurrent
