"""A verifier left alone for 10,000 blocks, while its chain, its Redis and its engine fail again and again.

python -m benchmarks.endurance [--blocks 10000] [--block_seconds 0.2]

Everything is real and a process of its own: ``targon verifier`` on a log in Redis, ``targon prover``, an engine for
each (a model of random weights with the default model's tokenizer, so that blocks can pass quickly), the
embedded chain. Outages, in turns: Redis is killed (SIGKILL) and started again; the verifier's engine likewise;
the chain's file is moved away for a while, so that it can't be asked. At the end the log is read as anyone could
read it, and must tell of every interval, hold every attempt that the prover answered exactly once, and agree with
the chain.

Exit code 0 if all of that holds and the verifier's memory is flat.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from targon.chain import EmbeddedChain
from targon.ledger import (
    Attempt,
    Event,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    LedgerError,
    Standings,
    StepClosed,
    Verdict,
    WeightsNotSet,
    WeightsSet,
)
from targon.ledger.redis import RedisAddress, RedisLog
from targon.protocol.primitives import Hotkey
from targon.protocol.schedule import INTERVAL_BLOCKS
from tests.ledger.redis_server import RedisServer
from tests.neuron_processes import free_port
from tests.tiny_model import make_tiny_model

OUTAGE_EVERY_S = 45.0
CHAIN_AWAY_S = 8.0
"""Every call fails meanwhile."""
REDIS_AWAY_S = 2.0
WARM_UP = 0.25
"""Share of the run before memory counts."""
FLAT = 0.05
"""How far the mean of the last quarter may lie from that of the quarter after the warm-up, either way."""
START_S = 180.0


@dataclass
class Run:
    """What was seen while it ran."""

    outages: list[str] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(block, MB of resident memory of the verifier)."""


class World:
    """The processes and their files."""

    def __init__(self, folder: Path, block_seconds: float) -> None:
        self.folder = folder
        self.chain = folder / "chain.sqlite"
        self.wallets = folder / "wallets"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.targon(
            *("chain", "create", str(self.chain)),
            *("--block_seconds", str(block_seconds), "--tempo", str(INTERVAL_BLOCKS)),
        )
        for name, stake in (("verifier", "10000"), ("prover", "0")):
            wallet = ("--wallet.name", name, "--wallet.path", str(self.wallets))
            self.targon("wallet", "create", *wallet)
            self.targon("chain", "register", str(self.chain), *wallet, "--stake", stake)
        self.redis = RedisServer(folder / "redis")

    def targon(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "targon.cli", *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "targon.cli", *arguments], stdout=output, stderr=output
            )

    def start_engine(self, whose: str) -> None:
        socket_ = self.folder / f"{whose}-engine" / "engine.sock"
        self.start(
            f"{whose}-engine",
            *("engine", "--socket", str(socket_), "--model", str(self.folder / "model"), "--threads", "1"),
        )
        until(lambda: answers(socket_), f"{whose}'s engine answers")

    def start_neurons(self) -> None:
        for role in ("prover", "verifier"):
            flags = [
                *(role, "--subtensor.chain_endpoint", f"sqlite://{self.chain}"),
                *("--wallet.name", role, "--wallet.path", str(self.wallets)),
                *("--engine.socket", str(self.folder / f"{role}-engine" / "engine.sock")),
            ]
            if role == "prover":
                flags += ["--axon.port", str(free_port())]
            else:
                flags += [
                    *("--data.path", str(self.folder / "verifier"), "--neuron.max_tokens", "32"),
                    *("--calibration.path", str(self.folder / "calibrations"), "--neuron.axon_off"),
                    *("--config", str(self._secrets_file())),
                ]
            self.start(role, *flags)

    def _secrets_file(self) -> Path:
        path = self.folder / "verifier.toml"
        path.touch(mode=0o600)
        path.write_text(
            f"[database]\nport = {self.redis.address.port}\nindex = {self.redis.address.index}\n"
            f'password = "{self.redis.address.password}"\n'
        )
        return path

    def stop(self) -> None:
        for name in ("verifier", "prover", "verifier-engine", "prover-engine"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.redis.stop()


def make_model(folder: Path, positions: int) -> None:
    """A Llama of random weights, and how far honest engines of it differ, measured as for any model."""
    model = make_tiny_model(folder / "model")
    subprocess.run(
        [
            *(sys.executable, "-m", "targon.cli", "calibrate", "--model", str(model)),
            *("--out", str(folder / "calibrations"), "--cache", str(folder / "answers")),
            *("--positions", str(positions), "--evaluate", "1000"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


# -- outages ---------------------------------------------------------------------------------------------


def lose_redis(world: World) -> None:
    world.redis.kill()
    time.sleep(REDIS_AWAY_S)
    world.redis.start()


def lose_engine(world: World) -> None:
    engine = world.processes["verifier-engine"]
    engine.kill()
    engine.wait()
    world.start_engine("verifier")


def lose_chain(world: World) -> None:
    away = world.chain.with_suffix(".away")
    world.chain.rename(away)
    time.sleep(CHAIN_AWAY_S)
    away.rename(world.chain)


OUTAGES = {"redis": lose_redis, "engine": lose_engine, "chain": lose_chain}


def run(world: World, blocks: int) -> Run:
    """Let it run, and break something every so often."""
    seen = Run()
    chain = EmbeddedChain.open(world.chain)
    turn, next_outage = 0, time.monotonic() + OUTAGE_EVERY_S
    try:
        while (block := anyio.run(chain.block)) < blocks:
            for name in ("verifier", "prover"):
                if world.processes[name].poll() is not None:
                    raise SystemExit(f"{name} ended by itself: see {world.folder / name}.out")
            seen.memory.append((block, resident_mb(world.processes["verifier"].pid)))
            if time.monotonic() > next_outage:
                name = list(OUTAGES)[turn % len(OUTAGES)]
                turn += 1
                print(f"block {block}: no {name}", flush=True)
                OUTAGES[name](world)
                seen.outages.append(name)
                next_outage = time.monotonic() + OUTAGE_EVERY_S
            time.sleep(1.0)
    finally:
        chain.close()
    return seen


# -- what must hold --------------------------------------------------------------------------------------


async def read_log(address: RedisAddress) -> tuple[list[Event], Standings]:
    standings, events = Standings(), []
    async with RedisLog.open(address, read_only=True) as log:
        async for record in log.read():
            standings.apply(record)
            events.append(record.event)
    return events, standings


def faults_of(world: World, seen: Run) -> list[str]:
    """What does not hold; empty if all does."""
    try:
        events, standings = anyio.run(read_log, world.redis.address)
    except LedgerError as error:
        return [f"the log cannot be read: {error}"]
    faults = []
    opened = [event.interval for event in events if isinstance(event, IntervalOpened)]
    if opened != list(range(opened[0], opened[0] + len(opened))):
        faults.append(f"intervals were missed: {opened}")
    closed = [event.interval for event in events if isinstance(event, IntervalClosed)]
    anchored = [event.interval for event in events if isinstance(event, HeadAnchored)]
    if closed not in (opened, opened[:-1]):
        faults.append(f"intervals were not closed: got {closed}")
    if anchored not in (opened, opened[:-1]):
        faults.append(f"heads were not anchored: got {anchored}")
    said = {
        event.block // INTERVAL_BLOCKS for event in events if isinstance(event, WeightsSet | WeightsNotSet)
    }
    if missing := sorted(set(closed) - said):
        faults.append(f"nothing was said of weights in intervals {missing}")
    attempts = {f"{seq:016x}" for seq, event in enumerate(events) if isinstance(event, Attempt)}
    text = (world.folder / "prover.out").read_text(errors="replace")
    answered = re.findall(r"answered.*?attempt=([0-9a-f]{16})", text)
    if doubled := {each for each in answered if answered.count(each) > 1}:
        faults.append(f"attempts were answered twice: {sorted(doubled)}")
    if lost := sorted(set(answered) - attempts):
        faults.append(f"attempts that the prover answered are not in the log: {lost}")
    judged = [event.attempt for event in events if isinstance(event, Verdict)]
    if len(judged) != len(set(judged)):
        faults.append("an attempt has two verdicts")
    fails = [event for event in events if isinstance(event, Verdict) and event.outcome == "fail"]
    if fails:
        faults.append(f"{len(fails)} answers of the honest prover failed; the first: {fails[0].reason}")
    on_chain = anyio.run(weights_on_chain, world.chain, world.targon("wallet", "show", *_wallet(world)))
    if on_chain != dict(standings.last_weights):
        faults.append(f"the chain holds {on_chain}, the log {dict(standings.last_weights)}")
    before, after, change = drift(seen.memory)
    if abs(change) > FLAT:
        faults.append(f"memory went from {before:.0f} to {after:.0f} MB")
    steps = sum(isinstance(event, StepClosed) for event in events)
    print(
        json.dumps(
            {
                "records": len(events),
                "steps": steps,
                "blocks_skipped": standings.blocks_skipped,
                "intervals": len(closed),
                "anchored": len(anchored),
                "weights_set": sum(isinstance(event, WeightsSet) for event in events),
                "outages": {name: seen.outages.count(name) for name in OUTAGES},
                "verdicts": {
                    outcome: sum(isinstance(e, Verdict) and e.outcome == outcome for e in events)
                    for outcome in ("pass", "fail", "inconclusive")
                },
                "answered_by_the_prover": len(answered),
                "memory_mb": [round(before, 1), round(after, 1)],
                "memory_change": round(change, 4),
            },
            indent=1,
        )
    )
    return faults


def drift(memory: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """Mean of the quarter after the warm-up, of the last quarter, and the change from one to the other."""
    last = memory[-1][0]
    early = [mb for block, mb in memory if WARM_UP * last <= block < 2 * WARM_UP * last]
    late = [mb for block, mb in memory if block >= (1 - WARM_UP) * last]
    before, after = statistics.fmean(early), statistics.fmean(late)
    return before, after, after / before - 1


async def weights_on_chain(path: Path, hotkey: str) -> dict[int, int]:
    chain = EmbeddedChain.open(path)
    try:
        uid = await chain.require_uid(Hotkey(hotkey))
        return {int(target): weight for target, weight in (await chain.weights_of(uid)).items()}
    finally:
        await chain.aclose()


def _wallet(world: World) -> tuple[str, ...]:
    return ("--wallet.name", "verifier", "--wallet.path", str(world.wallets))


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no resident memory: it ended")


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def until(true: object, what: str) -> None:
    began = time.monotonic()
    assert callable(true)
    while not true():
        if time.monotonic() - began > START_S:
            raise SystemExit(f"waited {START_S:g} s in vain until {what}")
        time.sleep(0.1)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endurance", description=__doc__, formatter_class=raw
    )
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--block_seconds", type=float, default=0.2)
    parser.add_argument(
        "--positions", type=int, default=3_000, help="tokens that the calibration is made from"
    )
    parser.add_argument("--folder", type=Path, help="where to work, and leave what was written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="targon-endurance-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "calibrations").exists():
            make_model(folder, options.positions)
        world = World(folder, options.block_seconds)
        try:
            world.redis.start()
            for whose in ("prover", "verifier"):
                world.start_engine(whose)
            world.start_neurons()
            seen = run(world, options.blocks)
            verifier = world.processes["verifier"]
            verifier.send_signal(signal.SIGTERM)
            verifier.wait(60)
            faults = faults_of(world, seen)
        finally:
            world.stop()
        for fault in faults:
            print(f"FAULT: {fault}")
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
