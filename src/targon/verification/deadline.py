"""Our own reference engine is given so long for an answer, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from targon.engines import EngineUnavailable

T = TypeVar("T")


async def within(deadline_s: float | None, call: Callable[[], Awaitable[T]]) -> T:
    """Ask the reference engine, and wait for at most so many seconds (None: as long as it takes).

    Raises:
        EngineUnavailable: if no answer came in time; else what the call raises.
    """
    try:
        async with asyncio.timeout(deadline_s):
            return await call()
    except TimeoutError as error:
        limit = "its own limit" if deadline_s is None else f"{deadline_s:g} s"
        raise EngineUnavailable(f"no answer within {limit}") from error
