"""How a prover starts, is found, and stops; and what it says when it cannot."""

from __future__ import annotations

import signal
from dataclasses import replace

import anyio
import pytest

from targon.chain.port import Axon
from targon.prover import BadSettings, CannotStart, Prover, ProverSettings
from targon.transport import PortInUse, bind, bound_port
from tests.prover.world import PROVER, STRANGER, VERIFIER, CountingEngine, MemoryChain, a_prover
from tests.transport.world import head, send_raw

pytestmark = pytest.mark.anyio


async def test_a_prover_announces_where_it_serves() -> None:
    async with a_prover() as world:
        assert world.chain.axon_of(PROVER) == world.axon
        assert world.axon.host == "127.0.0.1"


async def test_a_prover_announces_the_address_that_it_was_told_to() -> None:
    async with a_prover(external_host="192.0.2.7", external_port=9999) as world:
        assert world.chain.axon_of(PROVER) == Axon("192.0.2.7", 9999)


async def test_announcing_is_tried_again() -> None:
    chain = MemoryChain()
    chain.refuse_axons = 1
    async with a_prover(chain=chain) as world:
        assert chain.axon_of(PROVER) == world.axon


async def test_a_prover_whose_axon_was_replaced_announces_it_again() -> None:
    async with a_prover() as world:
        chain = world.chain
        chain.neurons[0] = replace(chain.neurons[0], axon=Axon("192.0.2.1", 1))
        chain.head += 60
        with anyio.fail_after(3):
            while chain.axon_of(PROVER) != world.axon:
                await anyio.sleep(0.02)


async def test_a_port_in_use_is_an_error_before_anything_else_is_started() -> None:
    chain, engine = MemoryChain(), CountingEngine()
    chain.down, engine.fail_at = True, 0
    with bind("127.0.0.1", 0) as taken:
        prover = Prover(
            engine=engine, chain=chain, signer=PROVER, settings=ProverSettings(port=bound_port(taken))
        )

        with pytest.raises(PortInUse, match=str(bound_port(taken))):
            await prover.run()

    assert chain.calls == 0


async def test_a_chain_that_is_down_at_the_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targon.prover.view.START_TRIES", 2)
    chain = MemoryChain()
    chain.down = True

    with pytest.raises(CannotStart, match=r"the chain did not answer.*the chain is down"):
        await Prover(
            engine=CountingEngine(), chain=chain, signer=PROVER, settings=ProverSettings(port=0)
        ).run()


async def test_a_chain_that_comes_up_a_little_later_is_waited_for() -> None:
    chain = MemoryChain()
    chain.down = True

    async def comes_up() -> None:
        await anyio.sleep(0.3)
        chain.down = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(comes_up)
        async with a_prover(chain=chain) as world:
            assert chain.axon_of(PROVER) == world.axon


async def test_an_engine_that_is_down_at_the_start_is_named() -> None:
    engine = CountingEngine()
    engine.fail_at = 0

    with pytest.raises(CannotStart, match=r"the engine does not work.*GPU"):
        await Prover(engine=engine, chain=MemoryChain(), signer=PROVER, settings=ProverSettings(port=0)).run()


async def test_a_hotkey_without_a_uid_is_told_how_to_register() -> None:
    with pytest.raises(CannotStart, match=r"not registered.*targon register"):
        await Prover(
            engine=CountingEngine(), chain=MemoryChain(), signer=STRANGER, settings=ProverSettings(port=0)
        ).run()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_listening_everywhere_asks_for_an_address_to_announce(host: str) -> None:
    with pytest.raises(BadSettings, match=r"--axon\.external_ip"):
        await Prover(
            engine=CountingEngine(),
            chain=MemoryChain(),
            signer=PROVER,
            settings=ProverSettings(host=host, port=0),
        ).run()


async def test_the_liveness_probe_is_open_and_metrics_are_not_on_the_open_port() -> None:
    async with a_prover() as world:
        healthz = await send_raw(world.axon.port, head({}, method="GET", path="/healthz"))
        metrics = await send_raw(world.axon.port, head({}, method="GET", path="/metrics"))

        assert (healthz.status, metrics.status) == (200, 404)


async def test_the_operators_port_shows_metrics_and_what_ails_the_prover() -> None:
    engine = CountingEngine()
    with bind("127.0.0.1", 0) as free:
        port = bound_port(free)
    async with a_prover(engine=engine, metrics_port=port) as world:
        await world.client.generate(world.axon, world.request(max_tokens=3), VERIFIER)
        metrics = await send_raw(port, head({}, method="GET", path="/metrics"))
        well = await send_raw(port, head({}, method="GET", path="/healthz"))
        world.chain.neurons.pop(0)
        world.chain.head += 5
        await anyio.sleep(0.3)
        ill = await send_raw(port, head({}, method="GET", path="/healthz"))

    assert b"targon_prover_answered_total 1.0" in metrics.body
    assert b"targon_prover_tokens_total 3.0" in metrics.body
    assert b'targon_requests_admitted_total{path="/v1/generate"} 1.0' in metrics.body
    assert (well.status, ill.status) == (200, 503)
    assert b"no UID" in ill.body


async def test_the_roles_signal_handlers_are_its_own() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with a_prover():
        assert signal.getsignal(signal.SIGTERM) == before


async def test_a_stopped_prover_frees_its_port() -> None:
    async with a_prover() as world:
        port = world.axon.port
    with bind("127.0.0.1", port) as sock:
        assert bound_port(sock) == port
