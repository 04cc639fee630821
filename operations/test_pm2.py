"""Neurons under a real PM2: started as the documentation says, killed, stopped, and their logs turned over."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from operations import tools
from operations.conftest import Network
from operations.process_manager import MODULES, ProcessManager, children, healthy, running
from targon.ledger import SqliteLog, Standings, replay
from tests.neuron_processes import free_port

INTERPRETER = "../../.venv/bin/python"


@contextmanager
def prover(pm2: ProcessManager, network: Network) -> Iterator[int]:
    """The port of a prover that PM2 started from its folder, as operators do."""
    port = free_port()
    pm2(
        *(
            "start",
            "app.py",
            "--name",
            "prover",
            "--interpreter",
            INTERPRETER,
            "--kill-timeout",
            "30000",
            "--",
        ),
        *network.flags("prover"),
        *("--engine.socket", network.engine, "--axon.port", str(port)),
        cwd=tools.ROOT / "neurons" / "prover",
    )
    pm2.wait_for("a serving prover", lambda: healthy(port), ["prover"])
    yield port


def test_a_prover_starts_from_its_folder_and_serves(pm2: ProcessManager, network: Network) -> None:
    with prover(pm2, network):
        assert pm2.status("prover") == "online"
        assert "prover serves" in pm2.log("prover")


def test_a_killed_prover_is_started_again(pm2: ProcessManager, network: Network) -> None:
    with prover(pm2, network) as port:
        first = pm2.process("prover")["pid"]
        os.kill(first, signal.SIGKILL)
        pm2.wait_for(
            "another process",
            lambda: pm2.process("prover")["pid"] not in (0, first) and healthy(port),
            ["prover"],
        )
        assert pm2.process("prover")["pm2_env"]["restart_time"] == 1
        assert not running(first)


def test_stopping_asks_a_prover_to_end_and_it_ends_well(pm2: ProcessManager, network: Network) -> None:
    with prover(pm2, network) as port:
        pid = pm2.process("prover")["pid"]
        began = time.monotonic()
        pm2("stop", "prover")
        assert time.monotonic() - began < 20.0  # and not by force, after the 30 s of its timeout
        assert not running(pid)
        assert not healthy(port)
        assert pm2.status("prover") == "stopped"
        assert pm2.process("prover")["pm2_env"]["exit_code"] == 0
        assert "stopping" in pm2.log("prover")
        assert "SIGINT" in pm2.log("prover")
        assert "Traceback" not in pm2.log("prover")


def test_wrong_flags_are_not_tried_again(pm2: ProcessManager, tmp_path: Path) -> None:
    shell = ProcessManager(pm2.home, TARGON_PROVER_ARGS="--axon.port 99999", TARGON_LOGS=str(tmp_path))
    shell("start", "ecosystem.config.js", "--only", "prover")
    pm2.wait_for("at an end", lambda: pm2.process("prover")["pid"] == 0, ["prover"])
    assert "--axon.port" in pm2.log("prover")
    time.sleep(5.0)  # several times what PM2 waits before a first restart
    assert (pm2.process("prover")["pid"], pm2.process("prover")["pm2_env"]["restart_time"]) == (0, 0)


def test_what_may_come_right_is_tried_again(pm2: ProcessManager, tmp_path: Path) -> None:
    missing = "--wallet.name nobody --subtensor.chain_endpoint sqlite:chain.sqlite"
    shell = ProcessManager(pm2.home, TARGON_PROVER_ARGS=missing, TARGON_LOGS=str(tmp_path))
    shell("start", "ecosystem.config.js", "--only", "prover")
    pm2.wait_for("tried twice", lambda: pm2.process("prover")["pm2_env"]["restart_time"] >= 2, ["prover"])
    assert "wallet 'nobody'" in pm2.log("prover")


def test_the_ecosystem_starts_one_neuron_with_the_shell_s_settings(
    pm2: ProcessManager, network: Network, tmp_path: Path
) -> None:
    """By environment and by flags; with an engine of its own, which ends with the prover."""
    port = free_port()
    shell = ProcessManager(
        pm2.home,
        TARGON_LOGS=str(tmp_path),
        TARGON_PROVER__AXON__PORT=str(port),
        TARGON_PROVER__ENGINE__THREADS="1",
        TARGON_PROVER_ARGS=shlex.join(network.flags("prover")),
        A_SECRET_OF_THE_SHELL="leaked",
    )
    shell("start", "ecosystem.config.js", "--only", "prover")
    pm2.wait_for("a serving prover", lambda: healthy(port), ["prover"])
    assert [process["name"] for process in pm2.processes()] == ["prover"]
    assert "prover serves" in (tmp_path / "prover.log").read_text("utf-8")

    given = Path(f"/proc/{pm2.process('prover')['pid']}/environ").read_bytes().split(b"\0")
    assert f"TARGON_PROVER__AXON__PORT={port}".encode() in given
    assert not [variable for variable in given if variable.startswith(b"A_SECRET_OF_THE_SHELL=")]

    (engine,) = children(pm2.process("prover")["pid"])
    pm2("stop", "prover")
    assert pm2.process("prover")["pm2_env"]["exit_code"] == 0
    pm2.wait_for("the engine's end", lambda: not running(engine), ["prover"])


def test_a_verifier_ends_well_and_leaves_no_challenge_open(
    pm2: ProcessManager, network: Network, tmp_path: Path
) -> None:
    with prover(pm2, network):
        flags = [*network.flags("verifier"), "--engine.socket", str(network.engine)]
        shell = ProcessManager(pm2.home, TARGON_LOGS=str(tmp_path), TARGON_VERIFIER_ARGS=shlex.join(flags))
        shell("start", "ecosystem.config.js", "--only", "verifier")
        log = tmp_path / "verifier.log"
        pm2.wait_for(
            "a verdict",
            lambda: log.exists() and "outcome=pass" in log.read_text("utf-8"),
            ["verifier", "prover"],
        )
        pm2("stop", "verifier")
    assert pm2.process("verifier")["pm2_env"]["exit_code"] == 0
    told = log.read_text("utf-8")
    assert "stopping" in told
    assert "Traceback" not in told, told
    standings = anyio.run(_standings, network.folder / "verifier" / "log.sqlite")
    assert standings.open_attempts == {}


def test_an_oracle_that_is_killed_goes_on_with_its_folder(
    pm2: ProcessManager, network: Network, tmp_path: Path
) -> None:
    port, book = free_port(), tmp_path / "oracle" / "commitments.jsonl"
    flags = [
        *network.flags("oracle"),
        *("--axon.port", str(port), "--data.path", str(tmp_path / "oracle")),
        *("--oracle.period", "6", "--oracle.places", "1"),
    ]
    shell = ProcessManager(pm2.home, TARGON_LOGS=str(tmp_path), TARGON_ORACLE_ARGS=shlex.join(flags))
    shell("start", "ecosystem.config.js", "--only", "oracle")
    pm2.wait_for("a commitment", lambda: len(_lines(book)) >= 1, ["oracle"])
    first = pm2.process("oracle")["pid"]
    os.kill(first, signal.SIGKILL)
    pm2.wait_for("its end", lambda: not running(first), ["oracle"])
    before = _lines(book)
    pm2.wait_for(
        "another commitment, by a process that serves",
        lambda: len(_lines(book)) > len(before) and healthy(port),
        ["oracle"],
    )
    assert _lines(book)[: len(before)] == before
    pm2("stop", "oracle")
    assert pm2.process("oracle")["pm2_env"]["exit_code"] == 0
    assert not healthy(port)
    assert "Traceback" not in (tmp_path / "oracle.log").read_text("utf-8")


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


async def _standings(path: Path) -> Standings:
    log = await SqliteLog.open(path, read_only=True)
    try:
        return await replay(log)
    finally:
        await log.aclose()


def test_logs_are_turned_over_while_a_prover_writes_on(pm2: ProcessManager, network: Network) -> None:
    """pm2-logrotate, at its pinned version, with settings small enough to be seen at work."""
    for name, value in (("max_size", "1K"), ("retain", "2"), ("workerInterval", "1"), ("compress", "false")):
        pm2("set", f"pm2-logrotate:{name}", value)
    with prover(pm2, network) as port:
        logs = Path(pm2.process("prover")["pm2_env"]["pm_err_log_path"])
        pm2("install", ".", cwd=MODULES / "pm2-logrotate")

        def turned_over() -> bool:
            # each start of a prover writes a line or two
            pm2("restart", "prover")
            pm2.wait_for("a serving prover", lambda: healthy(port), ["prover"])
            return len(list(logs.parent.glob(f"{logs.stem}__*.log"))) > 0

        pm2.wait_for("turned over", turned_over, ["prover"])
        old = sorted(logs.parent.glob(f"{logs.stem}__*.log"))
        assert "prover serves" in old[0].read_text("utf-8")
        pm2.wait_for("new lines in the new file", lambda: _serves_on(pm2, logs, port), ["prover"])


def _serves_on(pm2: ProcessManager, log: Path, port: int) -> bool:
    pm2("restart", "prover")
    pm2.wait_for("a serving prover", lambda: healthy(port), ["prover"])
    return "prover serves" in log.read_text("utf-8")


@pytest.mark.parametrize("role", ["prover", "verifier", "oracle"])
def test_the_started_file_is_the_command(role: str) -> None:
    app = tools.ROOT / "neurons" / role / "app.py"
    result = tools.run(tools.ROOT / ".venv" / "bin" / "python", app, "--axon.port", "none")
    assert result.returncode == 2, tools.said(result)
    assert "axon" in result.stderr
