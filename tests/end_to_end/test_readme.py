"""Every command of the README is run, in its order, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import anyio

from targon.ledger import SqliteLog

README = Path(__file__).resolve().parents[2] / "README.md"
WAIT_S = 400.0
LONG_RUNNING = ("engine", "prover", "verifier")


def commands() -> list[list[str]]:
    """The shell commands of the README, one list of words each."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


def targon_commands() -> list[list[str]]:
    """Those of ``targon``, without its name."""
    return [words[1:] for words in commands() if words[0].endswith("targon")]


def test_every_command_is_of_make_or_targon():
    assert {Path(words[0]).name for words in commands()} == {"make", "targon"}


def test_every_target_of_make_exists():
    makefile = (README.parent / "Makefile").read_text("utf-8")
    for words in commands():
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)


def test_the_commands_do_what_the_readme_says(tmp_path: Path):
    """Wallets, chain and registrations, then engine, prover and verifier, until the prover has passed."""
    environment = {**os.environ, "HOME": str(tmp_path), "TARGON_CACHE": _cache()}
    log = tmp_path / ".targon" / "verifier" / "log.sqlite"
    with ExitStack() as stack:
        for words in targon_commands():
            command = [sys.executable, "-m", "targon.cli", *words]
            if words[0] in LONG_RUNNING:
                process = stack.enter_context(subprocess.Popen(command, cwd=tmp_path, env=environment))
                stack.callback(process.terminate)
            elif words[0] not in ("status", "why"):
                subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=240)
        deadline = time.monotonic() + WAIT_S
        while not anyio.run(_passed, log):
            assert time.monotonic() < deadline, "the prover did not pass in time"
            time.sleep(0.5)
    # The README asks a local network's folder; a verifier's own folder is asked in the same way.
    (tmp_path / ".localnet").symlink_to(log.parent)
    told = [
        subprocess.run(
            [sys.executable, "-m", "targon.cli", *words],
            cwd=tmp_path,
            env=environment,
            check=True,
            timeout=240,
            capture_output=True,
            text=True,
        ).stdout
        for words in targon_commands()
        if words[0] in ("status", "why")
    ]
    assert "Bronze" in told[0] or "Silver" in told[0]
    assert " passed (divergence)" in told[1]  # a challenge, or an inference of the verifier's own


def _cache() -> str:
    """The converted model is shared with other tests, whose home is another."""
    return os.environ.get("TARGON_CACHE", str(Path.home() / ".cache" / "targon"))


async def _passed(path: Path) -> bool:
    if not await anyio.Path(path).exists():
        return False
    log = await SqliteLog.open(path, read_only=True)
    try:
        return any(
            [record.event.kind == "verdict" and record.event.outcome == "pass" async for record in log.read()]
        )
    finally:
        await log.aclose()
