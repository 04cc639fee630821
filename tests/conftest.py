"""What every test shares: async tests run on asyncio; one engine process serves all who need a real model."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

ENGINE_START_S = 180.0
"""The first start converts the default model."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that configures logging does so for its test alone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    for added in set(root.handlers) - set(handlers):
        root.removeHandler(added)


@pytest.fixture(scope="session")
def engine_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an engine process that runs the default model in fp32."""
    path = tmp_path_factory.mktemp("engine") / "engine.sock"
    command = [sys.executable, "-m", "targon.engines.process", "--socket", str(path), "--stop-with-stdin"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        deadline = time.monotonic() + ENGINE_START_S
        while not _answers(path):
            assert process.poll() is None, "the engine process ended before it served; its log says why"
            assert time.monotonic() < deadline, f"no engine within {ENGINE_START_S:g} s"
            time.sleep(0.05)
        yield path
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(timeout=30)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
