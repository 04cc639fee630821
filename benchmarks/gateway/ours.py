"""TARGON as a user meets it: a verifier with its gateway, a prover and its engine, each a process.

Signing, receipts, audits, keys and the log are on. Nothing is made otherwise for the measurement but the prover's
limits (:mod:`benchmarks.gateway.prover`) and the reference (:mod:`benchmarks.gateway.reference`), which says yes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from benchmarks.gateway.answer import NAME, make_folder
from benchmarks.gateway.others import Place
from benchmarks.gateway.processes import free_port, module, running, wait_for_http
from benchmarks.gateway.streams import held
from targon.ledger import Answered, Attempt, SqliteLog, replay
from targon.protocol.tiers import Tier
from targon.verification import Calibration
from targon.verification.shipped import SHIPPED

BLOCK_SECONDS = 0.5
TIER = Tier.DIAMOND
"""Serves 10,000 requests in an interval: of 4 s here, in the shortened profile."""
CLIMB_S = 180.0
PATIENCE_S = 600.0
"""Seconds that a prover has for a whole answer, so that streams can be left alone."""


@dataclass(frozen=True)
class Network:
    """A network that is running."""

    folder: Path
    engine_port: int
    prover_port: int
    gateway: Place
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def log(self) -> Path:
        return self.folder / "verifier" / "log.sqlite"


def engine(folder: Path, port: int) -> list[str]:
    """The command of the instant engine."""
    return module("benchmarks.gateway.engine", "--folder", str(folder / NAME), "--port", str(port))


class Cast:
    """Makes the chain and the wallets, and knows the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = folder / "chain.sqlite"
        self._targon(
            *("chain", "create", str(self.chain), "--block_seconds", str(BLOCK_SECONDS), "--tempo", "20")
        )
        for name, stake in (("verifier", "10000"), ("prover", "0")):
            self._targon("wallet", "create", *self._wallet(name))
            self._targon("chain", "register", str(self.chain), *self._wallet(name), "--stake", stake)

    def _wallet(self, name: str) -> Sequence[str]:
        return "--wallet.name", name, "--wallet.path", str(self.folder / "wallets")

    def _targon(self, *arguments: str) -> str:
        done = subprocess.run(
            module("targon.cli", *arguments), check=True, stdout=subprocess.PIPE, text=True, timeout=60
        )
        return done.stdout

    def prover(self, port: int, engine_port: int) -> list[str]:
        return module(
            "benchmarks.gateway.prover",
            *("--subtensor.chain_endpoint", f"sqlite://{self.chain}", *self._wallet("prover")),
            *("--engine.url", f"http://127.0.0.1:{engine_port}"),
            *("--engine.model", str(self.folder / NAME), "--axon.port", str(port)),
        )

    def reference(self) -> list[str]:
        return module(
            "benchmarks.gateway.reference",
            *("--folder", str(self.folder / NAME), "--socket", str(self._socket)),
        )

    @property
    def _socket(self) -> Path:
        return self.folder / "reference" / "engine.sock"

    def calibration(self) -> Path:
        """A calibration for the instant reference: that of the default model, under its name."""
        model = make_folder(self.folder / NAME)
        shipped = json.loads(min(SHIPPED.glob("*.json")).read_text("utf-8"))
        changed = {**shipped, "model_digest": model.digest, "engine": "instant", "dtype": "float32"}
        calibration = Calibration.model_validate_json(json.dumps(changed))
        path = self.folder / f"{calibration.digest()}.json"
        path.write_bytes(calibration.to_bytes())
        return path

    def verifier(self, port: int, gateway_port: int) -> list[str]:
        return module(
            "targon.cli",
            *("verifier", "--subtensor.chain_endpoint", f"sqlite://{self.chain}", *self._wallet("verifier")),
            *("--engine.socket", str(self._socket), "--data.path", str(self.folder / "verifier")),
            *("--profile", "demo", "--calibration.path", str(self.calibration())),
            *("--axon.port", str(port), "--gateway.port", str(gateway_port)),
            *("--neuron.timeout", str(PATIENCE_S)),
        )

    def key(self) -> str:
        """A user's key without limits."""
        made = self._targon(
            *("key", "create", "--name", "benchmark", "--data.path", str(self.folder / "verifier")),
            *("--requests_per_minute", "0", "--tokens_per_minute", "0", "--concurrent", "0"),
        )
        return made.strip()


@contextmanager
def network(folder: Path, engine_port: int) -> Iterator[Network]:
    """Start it, and wait until its gateway answers. The engine is there already."""
    cast = Cast(folder)
    prover_port, verifier_port = free_port(), free_port()
    gateway = Place("TARGON", free_port(), cast.key())
    with ExitStack() as stack:

        def start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
            return stack.enter_context(running(name, command, folder))

        processes = {
            "reference": start("reference", cast.reference()),
            "prover": start("prover", cast.prover(prover_port, engine_port)),
            "verifier": start("verifier", cast.verifier(verifier_port, gateway.port)),
        }
        wait_for_http(gateway.port, "/healthz", processes["verifier"], folder / "verifier.out")
        ours = Network(folder, engine_port, prover_port, gateway, processes)
        anyio.run(_let_it_climb, ours)
        yield ours


async def _let_it_climb(ours: Network) -> None:
    """Ask now and then, until the prover's tier lets it have as many requests as will come."""
    with anyio.fail_after(CLIMB_S):
        while True:
            with held() as streams:
                await streams.open(ours.gateway, 4, max_tokens=16)
                await anyio.sleep(0.5)
            async with aclosing(await SqliteLog.open(ours.log, read_only=True)) as log:
                standings = await replay(log)
            if any(prover.tier >= TIER for prover in standings.provers()):
                return


async def settled(ours: Network) -> tuple[int, int]:
    """Inferences of users that the log has as answered, and attempts at them."""
    users: set[int] = set()
    answered = 0
    async with aclosing(await SqliteLog.open(ours.log, read_only=True)) as log:
        async for record in log.read():
            if isinstance(record.event, Attempt) and record.event.route is not None:
                users.add(record.seq)
            elif isinstance(record.event, Answered):
                answered += record.event.attempt in users
    return answered, len(users)
