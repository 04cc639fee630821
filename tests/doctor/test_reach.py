"""Whether a neuron answers at an address: real provers and verifiers, and what else may be there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair

from targon.chain import Axon
from targon.doctor import ask, reach
from targon.protocol.primitives import Hotkey
from targon.transport import Clock, Deadlines, Tls, bind, bound_port
from tests.doctor.looks import a_web_server, dropping
from tests.prover.world import PROVER, STRANGER, VERIFIER, a_prover
from tests.verifier.shop import PROVER as SHOP_PROVER
from tests.verifier.shop import VERIFIER as SHOP_VERIFIER
from tests.verifier.shop import a_chain, a_shop

pytestmark = pytest.mark.anyio


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reach, "DEADLINES", Deadlines(connect_s=0.4, first_byte_s=0.4, between_bytes_s=0.4, total_s=0.6)
    )


async def asked(
    port: int, asker: Keypair = VERIFIER, whom: Keypair = PROVER, tls: Tls = "auto"
) -> reach.Asked:
    return await ask(Axon("127.0.0.1", port), Hotkey(whom.ss58_address), asker, time.monotonic, tls=tls)


async def test_a_prover_answers_with_its_status() -> None:
    async with a_prover() as world:
        came = await asked(world.axon.port)
    assert (came.kind, came.is_it) == ("answers", True)
    assert "it serves tiny in targon/1, greedy" in came.said


async def test_a_stranger_is_refused_and_has_reached_the_prover() -> None:
    async with a_prover() as world:
        came = await asked(world.axon.port, STRANGER)
    assert (came.kind, came.is_it, "not_registered" in came.said) == ("refuses", True, True)


async def test_another_hotkey_s_prover_is_named() -> None:
    async with a_prover() as world:
        came = await asked(world.axon.port, whom=STRANGER)
    assert (came.kind, came.is_it) == ("another", False)
    assert came.said == (
        f"another hotkey answers there: {PROVER.ss58_address}, expected {STRANGER.ss58_address}"
    )


async def test_a_prover_whose_clock_is_off_is_there_and_its_clock_is_named() -> None:
    clock = Clock(now_ns=lambda: time.time_ns() + 60 * 10**9)
    async with a_prover(clock=clock) as world:
        came = await asked(world.axon.port)
    assert (came.kind, came.is_it, "60." in came.said) == ("clock", True, True)


async def test_a_closed_port_is_silent() -> None:
    with bind("127.0.0.1", 0) as sock:
        port = bound_port(sock)
    came = await asked(port)
    assert (came.kind, came.is_it) == ("silent", False)


async def test_a_port_behind_a_firewall_that_drops_is_silent_within_its_time(impatient: None) -> None:
    with dropping() as port:
        came = await asked(port)
    assert (came.kind, came.took_s < 2.0) == ("silent", True)


async def test_a_listener_that_says_nothing_is_silent(impatient: None) -> None:
    with bind("127.0.0.1", 0) as sock:
        came = await asked(bound_port(sock))
    assert (came.kind, "no answer" in came.said) == ("silent", True)


async def test_a_web_server_is_no_prover() -> None:
    async with a_web_server() as port:
        came = await asked(port)
    assert (came.kind, came.is_it) == ("stranger", False)


async def test_a_name_is_no_address() -> None:
    came = await ask(Axon("localhost", 80), Hotkey(PROVER.ss58_address), VERIFIER, time.monotonic)
    assert came.kind == "silent"


async def test_a_verifier_answers_with_what_it_verifies(tmp_path: Path) -> None:
    async with a_chain(tmp_path) as chain, a_shop(tmp_path, chain) as shop:
        came = await asked(shop.axon.port, SHOP_PROVER, SHOP_VERIFIER)
    assert (came.kind, came.is_it, came.role) == ("answers", True, "verifier")
    assert "it verifies tiny" in came.said


@pytest.mark.parametrize(("tls", "kind"), [("on", "answers"), ("off", "tls"), ("auto", "tls")])
async def test_a_prover_over_tls_answers_those_who_call_it_so(tls: Tls, kind: str) -> None:
    async with a_prover(tls="on") as world:
        came = await asked(world.axon.port, tls=tls)
    assert came.kind == kind


async def test_over_tls_another_hotkey_is_told_before_anything_is_sent() -> None:
    async with a_prover(tls="on") as world:
        came = await asked(world.axon.port, whom=STRANGER, tls="on")
    assert (came.kind, came.is_it) == ("another", False)
    assert f"got {PROVER.ss58_address}, expected {STRANGER.ss58_address}" in came.said


async def test_a_prover_without_tls_is_silent_to_who_insists_on_it() -> None:
    async with a_prover() as world:
        came = await asked(world.axon.port, tls="on")
    assert (came.kind, "--axon.tls on" in came.said) == ("silent", True)
