"""Starting, hearing and killing the processes that write logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from targon.ledger import Head
from tests.ledger.worlds import World
from tests.ledger.writer import acknowledged

ROOT = Path(__file__).parents[2]


@contextmanager
def writer(world: World) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.ledger.writer"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(world.told() + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[Head]:
    """What the process says of its next appends."""
    assert process.stdout is not None
    return [acknowledged(process.stdout.readline()) for _ in range(count)]


def kill(process: subprocess.Popen[str]) -> list[Head]:
    """kill -9; returns what it had acknowledged and nobody had read yet."""
    process.kill()
    assert process.stdout is not None
    rest = (
        process.stdout.read()
    )  # communicate() would leave out what readline() has taken from the pipe already
    process.wait()
    return [acknowledged(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
