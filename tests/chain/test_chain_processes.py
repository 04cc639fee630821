"""Several real processes on one chain file: nothing is lost, nothing counted twice, nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.chain import ChainSettings, EmbeddedChain, Neuron
from targon.protocol.primitives import Hotkey, Uid

pytestmark = pytest.mark.anyio

WORKERS = 4
ROUNDS = 25

BUSY_WORKER = """
import sys, anyio
from bittensor.keyfiles import Keypair
from targon.chain import Axon, EmbeddedChain
path, me, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shared, own = Keypair.create_from_uri("//shared"), Keypair.create_from_uri(f"//worker{me}")
chain = EmbeddedChain.open(path)
async def main():
    uid = chain.register(own)
    chain.add_stake(own, 10)
    for number in range(1, rounds + 1):
        chain.register(Keypair.create_from_uri(f"//{me}/{number}"))
        chain.add_stake(shared, 0.01)
        await chain.serve_axon(shared, Axon("127.0.0.1", 1 + me * rounds + number))
        await chain.set_weights(own, {0: 65_535, 1: number}, 0)
        graph = await chain.metagraph()
        assert graph.by_uid(uid).hotkey == own.ss58_address
anyio.run(main)
"""

WATCHING_WORKER = """
import sys, anyio
from targon.chain import EmbeddedChain
chain = EmbeddedChain.open(sys.argv[1], clock=lambda: float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
anyio.run(chain.metagraph)
"""

DYING_WORKER = """
import sys, anyio
from bittensor.keyfiles import Keypair
from targon.chain import EmbeddedChain
chain = EmbeddedChain.open(sys.argv[1])
me = Keypair.create_from_uri("//Alice")
async def main():
    number = int(sys.argv[2])
    while True:
        number += 1
        await chain.set_weights(me, {0: 65_535} | dict.fromkeys(range(1, 40), number), 0)
        print(number, flush=True)
anyio.run(main)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(worker: subprocess.Popen[str], text: str = "") -> None:
    _, stderr = worker.communicate(text, timeout=120)
    assert worker.returncode == 0, stderr


def sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        verdict: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return verdict == "ok"


async def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    settings = ChainSettings(block_seconds=0.02, tempo=2, weights_rate_limit=0)
    chain = EmbeddedChain.create(tmp_path / "chain.sqlite", settings)
    shared = Keypair.create_from_uri("//shared")
    chain.register(shared)
    workers = [start(BUSY_WORKER, chain.path, me, ROUNDS) for me in range(WORKERS)]
    for worker in workers:
        finish(worker)
    graph = await chain.metagraph()
    assert [neuron.uid for neuron in graph.neurons] == list(range(1 + WORKERS * (1 + ROUNDS)))
    assert len({neuron.hotkey for neuron in graph.neurons}) == len(graph.neurons)
    assert graph.neurons[0].stake == pytest.approx(0.01 * WORKERS * ROUNDS, abs=1e-9)
    assert await chain.nonce(Hotkey(shared.ss58_address)) == WORKERS * ROUNDS
    for me in range(WORKERS):
        validator = graph.by_hotkey(Hotkey(Keypair.create_from_uri(f"//worker{me}").ss58_address))
        assert validator is not None
        assert validator.stake == 10
        assert await chain.weights_of(validator.uid) == {0: 65_535, 1: ROUNDS}
        assert await chain.nonce(validator.hotkey) == ROUNDS
    assert sum(neuron.incentive for neuron in graph.neurons) == pytest.approx(1)
    await chain.aclose()
    assert sound(chain.path)


async def test_epochs_are_computed_once_however_many_processes_find_them_due(tmp_path: Path) -> None:
    now = 1_000.0
    chain = EmbeddedChain.create(
        tmp_path / "chain.sqlite",
        ChainSettings(block_seconds=1.0, tempo=10, weights_rate_limit=0),
        clock=lambda: now,
    )
    names = [Keypair.create_from_uri(f"//{number}") for number in range(12)]
    for signer in names:
        chain.register(signer)
    now = 1_001.0
    for number, signer in enumerate(names[:3], start=1):
        chain.add_stake(signer, number + 0.5)
        await chain.set_weights(signer, {Uid(place): number + place**2 for place in range(3, 12)}, 0)
    chain.close()
    shutil.copy(chain.path, tmp_path / "alone.sqlite")

    alone = EmbeddedChain.open(tmp_path / "alone.sqlite", clock=lambda: 1_036.0)
    expected = await _outcome(alone)
    workers = [start(WATCHING_WORKER, chain.path, 1_036.0) for _ in range(WORKERS)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        finish(worker, "go\n")
    together = EmbeddedChain.open(chain.path, clock=lambda: 1_036.0)
    assert await _outcome(together) == expected
    assert any(neuron.incentive for neuron in expected[0])
    alone.close()
    together.close()


async def _outcome(chain: EmbeddedChain) -> tuple[tuple[Neuron, ...], list[tuple[int, ...]]]:
    graph = await chain.metagraph()
    bonds = chain._store.read(
        lambda connection: connection.execute("SELECT * FROM bond ORDER BY uid, target").fetchall()
    )
    return graph.neurons, bonds


async def test_killing_a_writer_leaves_the_file_whole(tmp_path: Path) -> None:
    settings = ChainSettings(block_seconds=0.02, tempo=3, weights_rate_limit=0)
    chain = EmbeddedChain.create(tmp_path / "chain.sqlite", settings)
    chain.register(Keypair.create_from_uri("//Alice"))
    chain.add_stake(Keypair.create_from_uri("//Alice"), 1)
    for number in range(1, 40):
        chain.register(Keypair.create_from_uri(f"//{number}"))
    chain.close()
    last = 0
    for attempt in range(4):
        worker = start(DYING_WORKER, chain.path, last)
        assert worker.stdout is not None
        worker.stdout.readline()
        await anyio.sleep(0.1 + 0.037 * attempt)
        os.kill(worker.pid, signal.SIGKILL)
        stdout, _ = worker.communicate(timeout=60)
        acknowledged = int(stdout.split()[-1])
        survivor = EmbeddedChain.open(chain.path)
        weights = await survivor.weights_of(Uid(0))
        assert len(weights) == 40
        (stored,) = {value for uid, value in weights.items() if uid}
        assert acknowledged <= stored <= acknowledged + 1
        assert (await survivor.metagraph()).neurons[0].validator_permit
        survivor.close()
        last = stored
    assert sound(chain.path)
