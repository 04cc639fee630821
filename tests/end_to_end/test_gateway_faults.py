"""Users under load while provers die, one is slow, and the verifier is killed: no acknowledged answer is lost.

Of 20 provers, two die again and again and one is slow. All of it is real but the model, which is made up
(:mod:`tests.tiny_engine`).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from targon.gateway.keys import FILE_NAME, Allowed, KeyFile
from targon.ledger import Answered, Attempt, Event, Verdict
from targon.protocol.primitives import Digest
from targon.verification import Calibration
from targon.verification.calibration import save_calibration
from targon.verification.shipped import SHIPPED
from tests.neuron_processes import Network, free_port

pytestmark = pytest.mark.anyio

PROVERS = 20
DYING = ("p00", "p01")
SLOW = "p02"
USERS = 12
LOAD_S = 30.0
DEATH_EVERY_S = 4.0
READY_S = 90.0
TROUBLE = (aiohttp.ClientError, OSError, TimeoutError)


class Users:
    """Ask without pause, whole and streamed in turns, and remember what was acknowledged."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.acknowledged: set[str] = set()
        self.refused = 0
        self._headers = {"Authorization": f"Bearer {key}"}

    async def run(self, seconds: float) -> None:
        timeout = aiohttp.ClientTimeout(total=20.0)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as tasks:
                    for number in range(USERS):
                        tasks.start_soon(self._one, session, number)

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        stream = number % 2 == 0
        while True:
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": f"Go on, {number}."}],
                "max_tokens": 8,
                "temperature": 0.8,
                "stream": stream,
            }
            try:
                async with session.post(f"{self.url}/chat/completions", json=body) as response:
                    text = await response.text()
                    if response.status != 200 or not self._acknowledge(text, stream):
                        self.refused += 1
                        await anyio.sleep(0.1)
            except TROUBLE:
                await anyio.sleep(0.2)

    def _acknowledge(self, text: str, stream: bool) -> bool:
        """Whether an answer came whole: its finish names its receipt."""
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")] if stream else [text]
        for line in lines:
            for choice in json.loads(line).get("choices", ()):
                if "targon" in choice:
                    self.acknowledged.add(choice["targon"]["receipt_id"])
                    return True
        return False

    async def without_receipt(self) -> set[str]:
        """Of what was acknowledged, what the gateway knows nothing of."""
        async with aiohttp.ClientSession(headers=self._headers) as session:
            missing = set()
            for receipt_id in self.acknowledged:
                async with session.get(f"{self.url}/receipts/{receipt_id}") as response:
                    if response.status != 200:
                        missing.add(receipt_id)
            return missing


@contextmanager
def provers(network: Network, seats: dict[str, int], *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with some of the provers; killed at the end."""
    command = [
        *(sys.executable, "-m", "tests.many_provers", "--chain", f"sqlite://{network.chain}"),
        *("--wallets", str(network.folder / "wallets")),
        *("--provers", ",".join(f"{name}:{port}" for name, port in seats.items()), *more),
    ]
    with (network.folder / "provers.out").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def die_again_and_again(network: Network, seats: dict[str, int], until: anyio.Event) -> None:
    while not until.is_set():
        with provers(network, seats):
            with anyio.move_on_after(DEATH_EVERY_S):
                await until.wait()
        await anyio.sleep(0.5)


def calibration(folder: Path) -> Path:
    """That of the default model, for the made-up one."""
    shipped = json.loads(min(SHIPPED.glob("*.json")).read_text("utf-8"))
    changed = {**shipped, "model_digest": Digest("d" * 64), "engine": "tiny", "dtype": "float32"}
    return save_calibration(Calibration.model_validate_json(json.dumps(changed)), folder)


async def serves(users: Users) -> None:
    deadline = time.monotonic() + READY_S
    while not users.acknowledged:
        assert time.monotonic() < deadline, "nobody was answered"
        await users.run(1.0)


async def test_a_load_with_faults_loses_no_acknowledged_answer_and_charges_no_honest_prover(tmp_path: Path):
    socket = tmp_path / "engine" / "s"
    network = Network(tmp_path, ["--engine.socket", str(socket)])
    network.enrol("verifier", stake=10_000.0)
    seats = {f"p{number:02}": free_port() for number in range(PROVERS)}
    hotkeys = {name: network.enrol(name) for name in seats}
    steady = {name: port for name, port in seats.items() if name not in DYING}
    dying = {name: seats[name] for name in DYING}
    (tmp_path / "verifier").mkdir()
    keys = KeyFile(tmp_path / "verifier" / FILE_NAME)
    _, key = keys.create(
        "load",
        now=int(time.time()),
        allowed=Allowed(requests_per_minute=0, tokens_per_minute=0, concurrent=0),
    )
    keys.close()
    port = free_port()
    users = Users(f"http://127.0.0.1:{port}/v1", key)
    calibrated = calibration(tmp_path)
    flags = (
        "--gateway.port",
        str(port),
        "--calibration.path",
        str(calibrated),
        "--neuron.timeout",
        "10",
    )

    with provers(network, steady, "--slow", SLOW, "--socket", str(socket)):
        ended = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(die_again_and_again, network, dying, ended)
            with network.verifier(*flags) as verifier:
                await serves(users)
                tasks.start_soon(users.run, LOAD_S)
                await anyio.sleep(LOAD_S / 2)
                before = len(users.acknowledged)
                verifier.send_signal(signal.SIGKILL)
                verifier.wait()
            with network.verifier(*flags) as verifier:
                await anyio.sleep(LOAD_S / 2)
                if len(users.acknowledged) == before:
                    await users.run(READY_S / 3)
                ended.set()
                await anyio.sleep(1.0)
                missing = await users.without_receipt()
                verifier.send_signal(signal.SIGTERM)
                assert await anyio.to_thread.run_sync(verifier.wait) == 0
    events = await network.events()
    assert len(users.acknowledged) > before > 50, "the load was to go on after the kill"
    assert not missing
    assert users.acknowledged <= answered(events)
    charged = {
        attempt.prover
        for event in events
        if isinstance(event, Verdict) and event.outcome == "fail"
        if isinstance(attempt := events[event.attempt], Attempt)
    }
    assert charged <= {hotkeys[name] for name in (*DYING, SLOW)}
    audit = ["audit", str(tmp_path / "verifier" / "segments"), "--calibration", str(calibrated)]
    audited = await anyio.run_process([sys.executable, "-m", "targon.cli", *audit], check=False)
    assert audited.returncode == 0, audited.stdout.decode() + audited.stderr.decode()


def answered(events: list[Event]) -> set[str]:
    """Digests of the requests that the log has as answered."""
    return {
        attempt.request_digest
        for event in events
        if isinstance(event, Answered)
        if isinstance(attempt := events[event.attempt], Attempt)
    }
