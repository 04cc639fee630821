"""A chain with wallets, an engine, and a PM2 of its own for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from live import servers
from operations.process_manager import ProcessManager
from targon.cli import main


@dataclass(frozen=True)
class Network:
    """A chain file with a registered prover and verifier, an engine for both, and an oracle's wallet."""

    folder: Path
    engine: Path

    def flags(self, role: str) -> list[str]:
        """What `targon prover`, `targon verifier` or `targon oracle` is told to take part in it."""
        shared = [
            *("--netuid", "4"),
            *("--wallet.name", role, "--wallet.path", str(self.folder / "wallets")),
            *("--subtensor.chain_endpoint", f"sqlite://{self.folder / 'chain.sqlite'}"),
        ]
        if role in ("prover", "oracle"):
            return shared
        data = ["--data.path", str(self.folder / "verifier")]
        return [*shared, *data, "--profile", "demo", "--neuron.max_tokens", "32"]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    chain = folder / "chain.sqlite"
    assert main(["chain", "create", str(chain), "--block_seconds", "1", "--tempo", "5"]) == 0
    for name, stake in (("prover", "0"), ("verifier", "10000"), ("oracle", None)):
        wallet = ["--wallet.name", name, "--wallet.path", str(folder / "wallets")]
        assert main(["wallet", "create", *wallet]) == 0
        if stake is None:
            continue
        assert main(["chain", "register", str(chain), *wallet, "--stake", stake]) == 0
    with servers.transformers(folder, "engine", "--dtype", "float32") as engine:
        yield Network(folder, engine)


@pytest.fixture
def pm2() -> Iterator[ProcessManager]:
    """A PM2 whose processes and daemon end with the test."""
    home = Path(tempfile.mkdtemp(prefix="pm2-"))
    manager = ProcessManager(home)
    try:
        yield manager
    finally:
        manager("kill")
        shutil.rmtree(home)
