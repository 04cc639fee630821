"""The engine of a role: one that is running already, or one started for it in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from targon.cli.options import EngineOptions
from targon.engines import Engine, start_engine_process, wait_for_engine


@asynccontextmanager
async def opened_engine(options: EngineOptions) -> AsyncGenerator[Engine, None]:
    """An engine that answers, for as long as the block lasts.

    Raises:
        EngineUnavailable: if it doesn't answer, or its process ends.
    """
    if options.socket is not None:
        async with wait_for_engine(options.socket) as engine:
            yield engine
        return
    with tempfile.TemporaryDirectory(prefix="targon-engine-") as folder:
        async with start_engine_process(
            Path(folder) / "engine.sock",
            dtype=options.dtype,
            threads=options.threads or None,
            max_batch=options.max_batch,
        ) as engine:
            yield engine
