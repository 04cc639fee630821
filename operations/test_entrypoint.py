"""What the images start, run here by a shell: with the real `targon`, or with one that tells what it got."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from operations import tools
from operations.conftest import Network
from operations.process_manager import healthy
from tests.neuron_processes import free_port

ENTRYPOINT = tools.ROOT / "deploy" / "docker" / "entrypoint.sh"
HEALTHCHECK = tools.ROOT / "deploy" / "docker" / "healthcheck.py"
START_S = 240.0


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A folder with a `targon` that says which words and secrets it got."""
    stand_in = tmp_path / "bin" / "targon"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\nprintf "<%s>" "$@"\n'
        'printf "\\nkey=%s password=%s file=%s\\n" "${TARGON_ENGINE_API_KEY-}" '
        '"${TARGON_VERIFIER__DATABASE__PASSWORD-}" "${TARGON_ENGINE_API_KEY_FILE-unset}"\n',
        "utf-8",
    )
    stand_in.chmod(0o755)
    return stand_in.parent


def enter(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the entrypoint with nothing in its environment but these settings."""
    env = {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", **settings}
    return tools.run("/bin/sh", ENTRYPOINT, *words, env=env)


def test_shellcheck_finds_nothing() -> None:
    scripts = [ENTRYPOINT, tools.ROOT / "scripts" / "setup.sh"]
    result = tools.run(tools.tool("shellcheck"), "--shell=sh", "--severity=style", *scripts)
    assert result.returncode == 0, tools.said(result)


@pytest.mark.parametrize("role", ["prover", "verifier", "oracle"])
def test_flags_are_passed_on_as_they_are(told: Path, role: str) -> None:
    name = {f"TARGON_{role.upper()}__WALLET__NAME": "mine"}
    result = enter(told, "--axon.port", "8092", "--neuron.name", "two words", TARGON_ROLE=role, **name)
    assert result.stdout.splitlines()[0] == f"<{role}><--axon.port><8092><--neuron.name><two words>"
    assert enter(told, TARGON_ROLE=role, **name).stdout.splitlines()[0] == f"<{role}>"


def test_another_command_is_run_instead(told: Path) -> None:
    result = enter(told, "wallet", "create", "--wallet.name", "mine", TARGON_ROLE="prover")
    assert result.stdout.splitlines()[0] == "<wallet><create><--wallet.name><mine>"


def test_secrets_are_taken_from_files(told: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a b$c\n", "utf-8")
    settings = {"TARGON_ROLE": "prover", "TARGON_PROVER__WALLET__NAME": "mine"}
    result = enter(told, **settings, TARGON_ENGINE_API_KEY_FILE=str(tmp_path / "key"))
    assert result.stdout.splitlines()[1] == "key=a b$c password= file=unset"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "TARGON_ROLE is missing: expected prover, verifier or oracle"),
        ({"TARGON_ROLE": "miner"}, "TARGON_ROLE: got miner, expected prover, verifier or oracle"),
        ({"TARGON_ROLE": "prover"}, "TARGON_PROVER__WALLET__NAME is missing: name the wallet"),
        ({"TARGON_ROLE": "verifier"}, "TARGON_VERIFIER__WALLET__NAME is missing: name the wallet"),
        ({"TARGON_ROLE": "oracle"}, "TARGON_ORACLE__WALLET__NAME is missing: name the wallet"),
        (
            {"TARGON_ENGINE_API_KEY_FILE": "/run/secrets/nothing"},
            "TARGON_ENGINE_API_KEY_FILE: got /run/secrets/nothing, expected a file that user",
        ),
        (
            {"TARGON_ENGINE_API_KEY_FILE": "/dev/null"},
            "TARGON_ENGINE_API_KEY_FILE: got /dev/null, which is empty",
        ),
        (
            {"TARGON_VERIFIER__DATABASE__PASSWORD_FILE": "/a", "TARGON_VERIFIER__DATABASE__PASSWORD": "b"},
            "got both TARGON_VERIFIER__DATABASE__PASSWORD and TARGON_VERIFIER__DATABASE__PASSWORD_FILE",
        ),
    ],
)
def test_what_is_missing_is_named(told: Path, settings: dict[str, str], sentence: str) -> None:
    result = enter(told, **settings)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_signals_reach_the_neuron_and_its_health_can_be_asked(network: Network, tmp_path: Path) -> None:
    axon, metrics = free_port(), free_port()
    settings = {
        "TARGON_ROLE": "prover",
        "TARGON_PROVER__METRICS__PORT": str(metrics),
        "TARGON_PROVER__AXON__PORT": str(axon),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
    }
    flags = [*network.flags("prover"), "--engine.socket", str(network.engine)]
    output = tmp_path / "prover.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["/bin/sh", ENTRYPOINT, *flags], env={**os.environ, **settings}, stdout=file, stderr=file
        )
    try:
        assert "no answer on port" in tools.run(sys.executable, HEALTHCHECK, str(metrics)).stderr
        deadline = time.monotonic() + START_S
        while not healthy(axon):
            assert time.monotonic() < deadline, output.read_text("utf-8")
            time.sleep(0.2)
        check = tools.run(sys.executable, HEALTHCHECK, str(metrics))
        assert check.returncode == 0, tools.said(check)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60.0) == 0
    finally:
        process.kill()
        process.wait()
    assert "SIGTERM" in output.read_text("utf-8")
