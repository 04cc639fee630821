"""Ports and announced addresses: real sockets and real provers on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from targon.doctor import ports
from targon.doctor.ports import (
    AxonPlace,
    check_announced,
    check_axon,
    check_gateway_port,
    check_metrics_port,
    check_port,
    check_tls,
    is_ours,
)
from targon.transport import Deadlines, Tls, bind, bound_port
from tests.doctor.looks import a_web_server, dropping, look, only
from tests.neuron_processes import free_port
from tests.prover.world import PROVER, STRANGER, MemoryChain, a_prover
from tests.verifier.shop import VERIFIER as SHOP_VERIFIER
from tests.verifier.shop import a_chain, a_shop

pytestmark = pytest.mark.anyio

FAR = "192.0.2.7"
"""An address that is kept for documentation: nobody has it."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "CONNECT_S", 0.5)
    monkeypatch.setattr(ports, "ARRIVE_S", 0.5)
    short = Deadlines(connect_s=0.5, first_byte_s=0.5, between_bytes_s=0.5, total_s=0.8)
    monkeypatch.setattr("targon.doctor.reach.DEADLINES", short)


def settings(port: int, **changes) -> AxonPlace:
    return AxonPlace(**({"role": "prover", "port": port} | changes))


async def test_a_free_port_is_good_and_stays_free() -> None:
    port = free_port()
    result = await check_port(settings(port), PROVER, time.monotonic)
    assert (only(result).outcome, result.value) == ("good", "nobody")
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_port_that_our_own_prover_has_is_good(host: str) -> None:
    async with a_prover(host=host, external_host="127.0.0.1") as world:
        result = await check_port(settings(world.axon.port, host=host), PROVER, time.monotonic)
    assert (only(result).outcome, result.value) == ("good", "us")
    assert "this hotkey's own prover runs" in only(result).found


async def test_a_port_that_another_hotkey_s_prover_has_is_bad() -> None:
    async with a_prover() as world:
        result = await check_port(settings(world.axon.port), STRANGER, time.monotonic)
    assert (only(result).outcome, result.value) == ("bad", None)
    assert "another hotkey answers there" in only(result).found


async def test_a_port_that_another_program_has_is_bad_and_the_command_that_names_it_is_told() -> None:
    with bind("127.0.0.1", 0) as taken:
        finding = await look(check_port(settings(bound_port(taken)), PROVER, time.monotonic))
    assert (finding.outcome, "ss -ltnp" in finding.found) == ("bad", True)


async def test_an_address_that_is_not_this_machine_s_cannot_be_listened_at() -> None:
    finding = await look(check_port(settings(free_port(), host=FAR), PROVER, time.monotonic))
    assert (finding.outcome, "is 192.0.2.7 an address of this machine?" in finding.found) == ("bad", True)


async def announced(holder: ports.Holder, given: AxonPlace, *, public: bool = False):
    return await look(check_announced(holder, PROVER, given, time.monotonic, public=public))


async def test_a_call_to_the_announced_address_is_seen_to_come_in() -> None:
    finding = await announced("nobody", settings(free_port()))
    assert (finding.outcome, "comes to this machine" in finding.found) == ("good", True)


async def test_an_announced_port_that_leads_to_another_program_is_bad() -> None:
    with bind("127.0.0.1", 0) as other:
        finding = await announced("nobody", settings(free_port(), external_port=bound_port(other)))
    assert (finding.outcome, "leads elsewhere" in finding.found) == ("bad", True)


async def test_an_address_of_this_machine_that_is_not_listened_at_is_bad() -> None:
    finding = await announced("nobody", settings(free_port(), external_host="127.0.0.2"))
    assert (finding.outcome, "--axon.ip 127.0.0.2" in finding.advice) == ("bad", True)


@pytest.mark.parametrize("holder", ["nobody", "us"])
async def test_an_address_that_cannot_be_tried_from_here_is_noted_with_what_to_run_elsewhere(
    holder: ports.Holder,
) -> None:
    port = free_port()
    finding = await announced(holder, settings(port, external_host=FAR))
    assert finding.outcome == "note"
    assert "NAT hairpin" in finding.found
    assert (
        f"targon doctor reach {FAR} {port} {PROVER.ss58_address} (or: nc -vz {FAR} {port})" in finding.advice
    )


async def test_a_port_of_this_machine_that_drops_what_comes_is_bad() -> None:
    with dropping() as port:
        finding = await announced("nobody", settings(free_port(), external_port=port))
    assert (finding.outcome, "no connection within 0.5 s" in finding.found) == ("bad", True)


async def test_a_running_prover_is_asked_at_its_announced_address() -> None:
    async with a_prover() as world:
        well = await announced("us", settings(world.axon.port))
        async with a_prover() as other:
            twin = await announced("us", settings(world.axon.port, external_port=other.axon.port))
        lost = await announced("us", settings(world.axon.port, external_host="127.0.0.2"))
    assert (well.outcome, twin.outcome, lost.outcome) == ("good", "good", "bad")


async def test_a_running_prover_whose_announced_address_is_another_program_s_is_bad() -> None:
    async with a_web_server() as port:
        finding = await announced("us", settings(free_port(), external_port=port))
    assert (finding.outcome, "--axon.external_port" in finding.advice) == ("bad", True)


async def test_somebody_else_s_call_is_not_taken_for_our_own() -> None:
    port = free_port()

    async def call_again_and_again() -> None:
        while True:
            with suppress(OSError):
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(b"x" * ports.TOKEN_BYTES)
            await anyio.sleep(0.02)

    with bind("127.0.0.1", 0) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_again_and_again)
            finding = await announced("nobody", settings(port, external_port=bound_port(other)))
            tasks.cancel_scope.cancel()
    assert (finding.outcome, "leads elsewhere" in finding.found) == ("bad", True)


async def test_a_verifier_s_port_is_its_own_and_no_prover_s(tmp_path: Path) -> None:
    async with a_chain(tmp_path) as chain, a_shop(tmp_path, chain) as shop:
        port = shop.axon.port
        own = await look(check_port(settings(port, role="verifier"), SHOP_VERIFIER, time.monotonic))
        other = await look(check_port(settings(port), SHOP_VERIFIER, time.monotonic))
    assert (own.outcome, "this hotkey's own verifier runs" in own.found) == ("good", True)
    assert (other.outcome, "This hotkey's verifier has it" in other.found) == ("bad", True)


async def test_a_prover_over_tls_is_asked_over_tls() -> None:
    async with a_prover(tls="on") as world:
        given = settings(world.axon.port, tls="on")
        held = await look(check_port(given, PROVER, time.monotonic))
        reached = await announced("us", given)
        wrongly = await announced("us", settings(world.axon.port))
    assert [one.outcome for one in (held, reached, wrongly)] == ["good", "good", "bad"]
    assert "it speaks TLS" in wrongly.found


@pytest.mark.parametrize(
    ("host", "tls", "outcome", "found"),
    [
        ("127.0.0.1", "auto", "good", "is served without TLS"),
        (FAR, "auto", "good", "is served over TLS"),
        ("127.0.0.1", "on", "note", "call it without TLS"),
        (FAR, "off", "note", "call it over TLS"),
        ("0.0.0.0", "auto", "note", "not checked"),
    ],
)
async def test_callers_that_would_call_otherwise_than_is_served_are_noted(
    host: str, tls: Tls, outcome: str, found: str
) -> None:
    finding = await look(check_tls(settings(8091, external_host=host, tls=tls)))
    assert (finding.outcome, found in finding.found) == (outcome, True)


async def test_who_is_asked_to_look_from_elsewhere_is_told_how_it_is_served() -> None:
    finding = await announced("nobody", settings(free_port(), external_host=FAR, tls="off"))
    assert f"{PROVER.ss58_address} --tls off (or: nc" in finding.advice


async def test_a_private_address_on_a_public_network_is_noted() -> None:
    finding = await announced("nobody", settings(free_port()), public=True)
    assert (finding.outcome, "nobody outside can call" in finding.found) == ("note", True)


async def test_listening_everywhere_without_an_address_to_announce_is_bad() -> None:
    finding = await announced("nobody", settings(free_port(), host="0.0.0.0"))
    assert (finding.outcome, finding.advice) == ("bad", "--axon.external_ip ADDRESS")


@pytest.mark.parametrize(("host", "ours"), [("127.0.0.1", True), ("::1", socket.has_ipv6), (FAR, False)])
def test_an_address_of_this_machine_is_known(host: str, ours: bool) -> None:
    assert is_ours(host) == ours


async def test_what_stands_on_chain_is_compared() -> None:
    chain = MemoryChain()

    async def compared(holder: ports.Holder, given: AxonPlace):
        return await look(check_axon(await chain.metagraph(), holder, PROVER, given))

    async with a_prover(chain=chain) as world:
        same = await compared("us", settings(world.axon.port))
        other = await compared("us", settings(world.axon.port, external_port=9))
    before = await compared("nobody", settings(free_port()))
    unknown = await compared("nobody", settings(free_port(), host="0.0.0.0"))
    assert [one.outcome for one in (same, other, before, unknown)] == ["good", "note", "good", "note"]
    assert f"{world.axon} stands on chain, expected 127.0.0.1:9" in other.found


async def test_a_free_port_for_metrics_is_good() -> None:
    assert (await look(check_metrics_port(free_port()))).outcome == "good"


async def test_one_port_for_metrics_and_for_serving_is_bad() -> None:
    finding = await look(check_metrics_port(8091, served=8091))
    assert (finding.outcome, finding.advice) == ("bad", "choose another --metrics.port")


async def test_a_metrics_port_that_another_program_has_is_bad() -> None:
    with bind("127.0.0.1", 0) as taken:
        finding = await look(check_metrics_port(bound_port(taken)))
    assert (finding.outcome, "--metrics.port" in finding.advice) == ("bad", True)


async def test_a_port_for_users_that_another_program_has_is_bad() -> None:
    with bind("127.0.0.1", 0) as taken:
        finding = await look(check_gateway_port("127.0.0.1", bound_port(taken)))
    assert (finding.outcome, "--gateway.port" in finding.advice) == ("bad", True)
    assert (await look(check_gateway_port("127.0.0.1", free_port()))).outcome == "good"


async def test_a_role_that_runs_is_asked_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "CONNECT_S", 5.0)
    port = free_port()
    async with a_prover(metrics_port=port) as world:
        well = await look(check_metrics_port(port))
        world.chain.neurons.pop(0)
        world.chain.head += 5
        ill = await until(lambda one: one.outcome == "bad", port)
    assert (well.outcome, ill.found) == (
        "good",
        f"a role that runs with port {port} says what ails it: our hotkey has no UID",
    )


async def until(enough: Callable[..., bool], port: int):
    for _ in range(100):
        finding = await look(check_metrics_port(port))
        if enough(finding):
            break
        await anyio.sleep(0.05)
    return finding
