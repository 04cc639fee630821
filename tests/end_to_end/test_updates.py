"""A prover that runs from a checkout of this repository replaces itself by a signed release."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import sysconfig
import time
import venv
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from targon.chain import Axon
from targon.cli.keys import open_hotkey
from targon.cli.options import WalletOptions
from targon.engines.server import serve_engine
from targon.protocol.primitives import Hotkey
from targon.transport import NeuronClient, TransportError
from targon.updates import launcher
from tests.neuron_processes import Network, free_port
from tests.tiny_engine import TinyEngine
from tests.updates.world import IDENTITY, run

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
WAIT_S = 240.0


@pytest.fixture
async def network(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[Network]:
    socket = tmp_path / "engine.sock"
    async with serve_engine(TinyEngine(), socket):
        yield Network(tmp_path, ("--engine.socket", str(socket)))


def release(folder: Path, version: str) -> Path:
    """A remote with a signed release of this software; returns the file of those who may sign."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key", folder=folder)
    signers = folder / "allowed_signers"
    signers.write_text(f'maintainer namespaces="git" {(folder / "key.pub").read_text("utf-8")}', "utf-8")
    maintainer = folder / "maintainer"
    run("git", "clone", "-q", "--bare", ROOT, folder / "remote.git", folder=folder)
    run("git", "clone", "-q", folder / "remote.git", maintainer, folder=folder)
    run("git", "clone", "-q", folder / "remote.git", folder / "checkout", folder=folder)
    software = maintainer / "src" / "targon" / "__init__.py"
    lines = software.read_text("utf-8").splitlines()
    changed = [f'__version__ = "{version}"' if line.startswith("__version__ =") else line for line in lines]
    software.write_text("\n".join(changed) + "\n", "utf-8")
    run("git", *IDENTITY, "commit", "-q", "-a", "-m", "Release", folder=maintainer)
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={folder / 'key'}")
    run("git", *IDENTITY, *signing, "tag", "-s", "-m", "Release", f"v{version}", folder=maintainer)
    run("git", "push", "-q", "origin", "HEAD", f"v{version}", folder=maintainer)
    return signers


def make_environment(checkout: Path) -> None:
    """An environment of the checkout's own, with what this one has installed, that counts as set up."""
    folder = checkout / ".venv"
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    installed = folder / "lib" / version / "site-packages" / "installed.pth"
    installed.write_text(f"{sysconfig.get_path('purelib')}\n", "utf-8")
    (environment, *_) = runpy.run_path(str(checkout / "scripts" / "setup.py"))["ENVIRONMENTS"]
    (folder / "run.stamp").write_text(environment.fingerprint(), "utf-8")


async def version_of(client: NeuronClient, network: Network, port: int, prover: Hotkey) -> str | None:
    """The version that the prover says it is; None while it doesn't answer."""
    caller = open_hotkey(WalletOptions(name="verifier", path=network.folder / "wallets"))
    try:
        return (await client.status(Axon("127.0.0.1", port), prover, caller)).version
    except TransportError:
        return None


async def test_a_prover_updates_itself_from_a_signed_release_and_stays_the_same_process(network):
    prover = Hotkey(network.enrol("prover"))
    network.enrol("verifier", stake=10_000)
    signers = await anyio.to_thread.run_sync(release, network.folder, "9.0.0")
    checkout = network.folder / "checkout"
    await anyio.to_thread.run_sync(make_environment, checkout)
    starter, port = network.folder / "launcher.py", free_port()
    shutil.copy(launcher.__file__, starter)
    command = [
        *(sys.executable, str(starter), "--state", str(network.folder / "state" / "update.json"), "--"),
        *(str(checkout / ".venv" / "bin" / "python"), "-m", "targon.cli", "prover"),
        *("--subtensor.chain_endpoint", f"sqlite://{network.chain}", *network.engine),
        *("--wallet.name", "prover", "--wallet.path", str(network.folder / "wallets")),
        *("--axon.port", str(port), "--autoupdate.enabled"),
        *("--autoupdate.allowed_signers", str(signers)),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout / "src"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    output = network.folder / "prover.out"
    with output.open("wb") as sink:
        process = await anyio.open_process(command, env=environment, stdout=sink, stderr=sink, cwd=checkout)
    async with process, NeuronClient() as client:
        try:
            deadline = time.monotonic() + WAIT_S
            while (
                await version_of(client, network, port, prover) != "9.0.0"
                or "updated" not in output.read_text()
            ):
                assert process.returncode is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                await anyio.sleep(0.2)
        finally:
            process.terminate()
        assert await process.wait() == 0, output.read_text()


async def test_updates_that_were_asked_for_without_the_launcher_keep_a_prover_from_starting(network):
    network.enrol("prover")
    with network.running(
        "prover", "prover", "--axon.port", str(free_port()), "--autoupdate.enabled"
    ) as process:
        with anyio.fail_after(120):
            assert await anyio.to_thread.run_sync(process.wait) == 1
    said = (network.folder / "prover.out").read_text()
    assert "automatic updates need the launcher" in said
    assert "docs/upgrade.md" in said
