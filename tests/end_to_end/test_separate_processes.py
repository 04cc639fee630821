"""``targon prover`` and ``targon verifier`` as processes of their own, on one chain file and the real model.

Each is killed with ``kill -9`` in the middle of an interval; the log is then found whole, and the counters right.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import anyio
import pytest

from targon.cli import main
from targon.ledger import Attempt, Event, SqliteLog, Standings, Verdict, replay

pytestmark = pytest.mark.anyio

WAIT_S = 120.0


class Network:
    """One chain file, and the processes on it."""

    def __init__(self, folder: Path, engine_socket: Path) -> None:
        self.folder = folder
        self.engine_socket = engine_socket
        self.chain = folder / "chain.sqlite"
        self.log = folder / "verifier" / "log.sqlite"
        assert main(["chain", "create", str(self.chain), "--block_seconds", "1", "--tempo", "5"]) == 0

    def enrol(self, name: str, stake: float = 0.0) -> None:
        wallet = ["--wallet.name", name, "--wallet.path", str(self.folder / "wallets")]
        assert main(["wallet", "create", *wallet]) == 0
        assert main(["chain", "register", str(self.chain), *wallet, "--stake", str(stake)]) == 0

    @contextmanager
    def running(self, role: str, name: str, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [
            *(sys.executable, "-m", "targon.cli", role),
            *("--subtensor.chain_endpoint", f"sqlite://{self.chain}"),
            *("--wallet.name", name, "--wallet.path", str(self.folder / "wallets")),
            *("--engine.socket", str(self.engine_socket)),
            *flags,
        ]
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def prover(self, name: str, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return self.running("prover", name, "--axon.port", str(port))

    def verifier(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        flags = (
            "--data.path",
            str(self.folder / "verifier"),
            "--profile",
            "demo",
            "--neuron.max_tokens",
            "32",
        )
        return self.running("verifier", "verifier", *flags)

    async def events(self) -> list[Event]:
        if not self.log.exists():
            return []
        log = await SqliteLog.open(self.log, read_only=True)
        try:
            return [record.event async for record in log.read()]
        finally:
            await log.aclose()

    async def standings(self) -> Standings:
        log = await SqliteLog.open(self.log, read_only=True)
        try:
            return await replay(log)
        finally:
            await log.aclose()

    async def wait_for(self, enough: Callable[[list[Event]], bool], what: str) -> list[Event]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            events = await self.events()
            if enough(events):
                return events
            await anyio.sleep(0.1)
        told = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.out"))
        raise AssertionError(f"no {what} within {WAIT_S:g} s; the processes said:\n{told}")


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _open_attempts(events: list[Event]) -> set[int]:
    attempts = {place for place, event in enumerate(events) if isinstance(event, Attempt)}
    return attempts - {event.attempt for event in events if isinstance(event, Verdict)}


def _passes(events: list[Event]) -> Counter[str]:
    return Counter(
        events[event.attempt].prover  # type: ignore[union-attr]
        for event in events
        if isinstance(event, Verdict) and event.outcome == "pass"
    )


async def test_killed_processes_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, engine_socket: Path
) -> None:
    network = Network(tmp_path, engine_socket)
    network.enrol("verifier", stake=10_000.0)
    ports = {"first": _port(), "second": _port()}
    for name in ports:
        network.enrol(name)
    with network.prover("first", ports["first"]), network.prover("second", ports["second"]) as second:
        with network.verifier() as verifier:
            await network.wait_for(lambda events: len(_passes(events)) == 2, "pass of both provers")
            await network.wait_for(lambda events: bool(_open_attempts(events)), "attempt under way")
            verifier.send_signal(signal.SIGKILL)
            verifier.wait()
            second.send_signal(signal.SIGKILL)
            second.wait()
        at_the_kill = await network.events()
        assert _open_attempts(at_the_kill), "the kill was to come in the middle of a step"

        with network.prover("second", ports["second"]), network.verifier() as verifier:
            passed = _passes(at_the_kill)
            await network.wait_for(
                lambda events: all(count > passed[who] for who, count in _passes(events).items()),
                "pass of both provers after the restart",
            )
            verifier.send_signal(signal.SIGTERM)
            assert verifier.wait(timeout=30) == 0

    events = await network.events()
    assert events[: len(at_the_kill)] == at_the_kill
    judged = [event.attempt for event in events if isinstance(event, Verdict)]
    assert len(judged) == len(set(judged)), "no attempt was judged twice"
    assert not _open_attempts(events), "no attempt was left without a verdict"
    abandoned = _open_attempts(at_the_kill)
    assert {e.outcome for e in events if isinstance(e, Verdict) and e.attempt in abandoned} == {
        "inconclusive"
    }
    counted = {prover.hotkey: prover.total_successes for prover in (await network.standings()).provers()}
    assert counted == dict(_passes(events))


def test_a_second_verifier_on_the_same_log_is_refused(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, engine_socket)
    network.enrol("verifier", stake=10_000.0)
    with network.verifier():
        deadline = time.monotonic() + WAIT_S
        while not network.log.exists() or not network.log.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with network.verifier() as second:
            assert second.wait(timeout=60) == 1
    assert "log.sqlite" in (tmp_path / "verifier.out").read_text()


def test_a_prover_says_which_port_is_taken(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, engine_socket)
    network.enrol("first")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with network.prover("first", port) as process:
            assert process.wait(timeout=60) == 1
    assert f"port {port} on 127.0.0.1 is already in use" in (tmp_path / "first.out").read_text()


def test_an_unregistered_prover_is_told_how_to_register(tmp_path: Path, engine_socket: Path) -> None:
    network = Network(tmp_path, engine_socket)
    wallet = ["--wallet.name", "nobody", "--wallet.path", str(tmp_path / "wallets")]
    assert main(["wallet", "create", *wallet]) == 0
    with network.prover("nobody", _port()) as process:
        assert process.wait(timeout=60) == 1
    said = (tmp_path / "nobody.out").read_text()
    assert "is not registered on subnet 4" in said
    assert "targon chain register" in said
