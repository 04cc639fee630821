"""Waiting for an engine that somebody else is starting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from targon.engines.client import EngineClient, connect_engine, engine_answers
from targon.engines.errors import EngineUnavailable

START_S = 300.0
"""Longest start: the first one converts the default model."""
POLL_S = 0.2


@asynccontextmanager
async def wait_for_engine(path: Path, *, start_s: float = START_S) -> AsyncIterator[EngineClient]:
    """Use the engine that serves on a socket, or will within ``start_s`` seconds.

    Raises:
        EngineUnavailable: if none answers by then.
    """
    deadline = anyio.current_time() + start_s
    while not await engine_answers(path):
        if anyio.current_time() > deadline:
            raise EngineUnavailable(
                f"engine at {path}: no answer within {start_s:g} s; start one with `targon engine --socket {path}`"
            )
        await anyio.sleep(POLL_S)
    async with connect_engine(path) as engine:
        yield engine
