"""A small local network, started as a person starts it, with a terminal and without."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path


def test_a_local_network_runs_to_its_end_and_says_who_stands_where(tmp_path: Path):
    folder, picture = tmp_path / "net", tmp_path / "screen.svg"
    flags = ["--path", str(folder), "--picture", str(picture), "--honest", "1", "--bf16", "0"]
    flags += ["--cheats", "wrong-seed", "--cheats", "offline", "--intervals", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "targon.cli", "localnet", *flags],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Every cheat that answers was convicted, no honest prover was" in ended.stdout
    assert "wrong-seed is convicted, after " in ended.stdout
    assert "no verdict" not in ended.stdout
    assert picture.read_text("utf-8").startswith("<svg")
    why = subprocess.run(
        [sys.executable, "-m", "targon.cli", "why", "2", "--path", str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    # which of its answers told is chance: greedy ones are right whatever the seed, and users' are audited too
    assert re.search(r"(challenge|inference) failed \(divergence\)", why.stdout), why.stdout
    assert "are not what the sampler draws" in why.stdout
    assert "convicted after " in why.stdout


def test_an_oracle_feeds_a_verifier_and_lends_its_engine_to_another(tmp_path: Path):
    folder = tmp_path / "net"
    flags = ["--path", str(folder), "--honest", "1", "--bf16", "0", "--cheats", "wrong-seed"]
    ended = subprocess.run(
        [sys.executable, "-m", "targon.cli", "localnet", *flags, "--intervals", "2", "--light"],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "private inputs come from the oracle now" in ended.stdout
    told = r"[1-9]\d* of \d+ private inputs came from the oracle, whose commitments to [1-9]\d* periods were seen"
    assert re.search(told, ended.stdout)
    assert re.search(r"The verifier without an engine judged [1-9]\d* challenges", ended.stdout)
    assert re.search(r"[1-9]\d* of them were over", ended.stdout)
    command = shlex.split(ended.stdout.splitlines()[-1])
    assert command[:2] == ["targon", "audit"]
    audited = subprocess.run(
        [sys.executable, "-m", "targon.cli", *command[1:]],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert audited.returncode == 0, audited.stdout
    assert "periods' reveals computed again" in audited.stdout


def test_a_process_that_dies_ends_the_network_with_its_own_words(tmp_path: Path):
    """A cache folder that cannot be written keeps the engines from starting."""
    blocked = tmp_path / "cache"
    blocked.write_text("a file where a folder should be")
    ended = subprocess.run(
        [sys.executable, "-m", "targon.cli", "localnet", "--path", str(tmp_path / "net"), "--honest", "1"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TARGON_CACHE": str(blocked)},
    )
    assert ended.returncode == 1
    assert "ended with exit code" in ended.stderr


def test_a_network_that_is_asked_to_stop_says_how_it_ended(tmp_path: Path):
    folder = tmp_path / "net"
    flags = ["--path", str(folder), "--honest", "1", "--bf16", "0", "--cheats", "offline", "--intervals", "0"]
    command = [sys.executable, "-m", "targon.cli", "localnet", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("block "):
                break
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=240)
    assert process.returncode in (0, 1), told
    assert f"The log: {folder / 'verifier-1' / 'log.sqlite'}" in told
