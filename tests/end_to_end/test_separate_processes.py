"""``targon prover`` and ``targon verifier`` as processes of their own, on one chain file and the real model.

Each is killed with ``kill -9`` in the middle of an interval; the log is then found whole, and the counters right.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from targon.cli import main
from targon.ledger import Verdict
from tests.neuron_processes import WAIT_S, Network, free_port, open_attempts, passes

pytestmark = pytest.mark.anyio


async def stopped_within_an_attempt(network: Network, verifier: subprocess.Popen[bytes]) -> None:
    """Let the verifier take no further step while an attempt is under way: one may end as soon as it is seen."""
    while True:
        await network.wait_for(lambda events: bool(open_attempts(events)), "attempt under way")
        verifier.send_signal(signal.SIGSTOP)
        await anyio.to_thread.run_sync(os.waitpid, verifier.pid, os.WUNTRACED)
        if open_attempts(await network.events()):
            return
        verifier.send_signal(signal.SIGCONT)


async def test_killed_processes_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, engine_socket: Path
) -> None:
    network = Network(tmp_path, ["--engine.socket", str(engine_socket)])
    network.enrol("verifier", stake=10_000.0)
    ports = {"first": free_port(), "second": free_port()}
    for name in ports:
        network.enrol(name)
    with network.prover("first", ports["first"]), network.prover("second", ports["second"]) as second:
        with network.verifier() as verifier:
            await network.wait_for(lambda events: len(passes(events)) == 2, "pass of both provers")
            await stopped_within_an_attempt(network, verifier)
            verifier.send_signal(signal.SIGKILL)
            verifier.wait()
            second.send_signal(signal.SIGKILL)
            second.wait()
        at_the_kill = await network.events()
        assert open_attempts(at_the_kill), "the kill was to come in the middle of a step"

        with network.prover("second", ports["second"]), network.verifier() as verifier:
            passed = passes(at_the_kill)
            await network.wait_for(
                lambda events: all(count > passed[who] for who, count in passes(events).items()),
                "pass of both provers after the restart",
            )
            verifier.send_signal(signal.SIGTERM)
            assert verifier.wait(timeout=120) == 0

    events = await network.events()
    assert events[: len(at_the_kill)] == at_the_kill
    judged = [event.attempt for event in events if isinstance(event, Verdict)]
    assert len(judged) == len(set(judged)), "no attempt was judged twice"
    assert not open_attempts(events), "no attempt was left without a verdict"
    abandoned = open_attempts(at_the_kill)
    assert {e.outcome for e in events if isinstance(e, Verdict) and e.attempt in abandoned} == {
        "inconclusive"
    }
    counted = {prover.hotkey: prover.total_successes for prover in (await network.standings()).provers()}
    assert counted == dict(passes(events))


async def test_processes_speak_tls_where_they_are_told_to(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, ["--engine.socket", str(engine_socket)])
    network.enrol("verifier", stake=10_000.0)
    over_tls, plain = network.enrol("first"), network.enrol("second")
    with (
        network.prover("first", free_port(), "--axon.tls", "on"),
        network.prover("second", free_port()),
        network.verifier("--neuron.tls", "on"),
    ):
        events = await network.wait_for(
            lambda events: (
                passes(events)[over_tls] > 0
                and any("--axon.tls on" in event.reason for event in events if isinstance(event, Verdict))
            ),
            "pass of the prover over TLS, and complaint about the other",
        )
    assert passes(events)[plain] == 0


def test_a_second_verifier_on_the_same_log_is_refused(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, ["--engine.socket", str(engine_socket)])
    network.enrol("verifier", stake=10_000.0)
    with network.verifier():
        deadline = time.monotonic() + WAIT_S
        while not network.log.exists() or not network.log.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with network.verifier() as second:
            assert second.wait(timeout=120) == 1
    assert "log.sqlite" in (tmp_path / "verifier.out").read_text()


def test_a_prover_says_which_port_is_taken(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, ["--engine.socket", str(engine_socket)])
    network.enrol("first")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with network.prover("first", port) as process:
            assert process.wait(timeout=120) == 1
    assert f"port {port} on 127.0.0.1 is already in use" in (tmp_path / "first.out").read_text()


def test_an_unregistered_prover_is_told_how_to_register(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, ["--engine.socket", str(engine_socket)])
    wallet = ["--wallet.name", "nobody", "--wallet.path", str(tmp_path / "wallets")]
    assert main(["wallet", "create", *wallet]) == 0
    with network.prover("nobody", free_port()) as process:
        assert process.wait(timeout=120) == 1
    said = (tmp_path / "nobody.out").read_text()
    assert "is not registered on subnet 4" in said
    assert "targon chain register" in said
