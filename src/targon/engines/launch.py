"""Starts an engine process and stops it again."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from targon.engines.client import EngineClient, connect_engine, engine_answers
from targon.engines.errors import EngineUnavailable

START_SECONDS = 180.0
"""How long an engine may take to start: imports, and the first time the conversion of the default model."""

_STOP_SECONDS = 10.0


@asynccontextmanager
async def start_engine_process(
    socket: Path,
    *,
    model: str | Path = "default",
    dtype: str = "float32",
    variant: str | None = None,
    threads: int | None = None,
    max_batch: int = 8,
    timeout_s: float = 120.0,
) -> AsyncIterator[EngineClient]:
    """Start an engine process, connect to it, and stop it when the block ends.

    It also stops when this process dies, however it dies. Arguments as for
    :func:`targon.engines.transformers_engine.open_transformers_engine` and
    :func:`targon.engines.client.connect_engine`. The process's log goes to this process's stderr.

    Raises:
        EngineUnavailable: if it doesn't serve within :data:`START_SECONDS`, or exits before.
    """
    command = [sys.executable, "-m", "targon.engines.process", "--stop-with-stdin"]
    command += [
        "--socket",
        str(socket),
        "--model",
        str(model),
        "--dtype",
        dtype,
        "--max-batch",
        str(max_batch),
    ]
    command += ["--variant", variant] if variant is not None else []
    command += ["--threads", str(threads)] if threads is not None else []
    process = await anyio.open_process(command, stdout=None, stderr=None)
    try:
        with anyio.move_on_after(START_SECONDS):
            while process.returncode is None and not await engine_answers(socket):
                await anyio.sleep(0.05)
        if process.returncode is not None:
            raise EngineUnavailable(
                f"engine process for {socket}: it exited with code {process.returncode} before it served; "
                "its log says why"
            )
        async with connect_engine(socket, timeout_s=timeout_s) as engine:
            yield engine
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            with anyio.move_on_after(_STOP_SECONDS):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()
