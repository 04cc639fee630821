"""One thread for everything that computes with a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import anyio

P = ParamSpec("P")
T = TypeVar("T")


class ModelThread:
    """Runs blocking functions, one after another, always in the same thread.

    anyio's own worker threads would do, were it not for OpenMP: it keeps a team of helpers for every
    thread that ever called it, and lets them wait far less eagerly once all teams together outnumber the
    cores. A model that moves from thread to thread decodes at half its speed (2 cores, SmolLM2-135M).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="targon-model")

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function there. Cancellation waits for it: what runs there cannot be interrupted."""
        future = self._executor.submit(function, *args, **kwargs)
        with anyio.CancelScope(shield=True):
            await asyncio.wait([asyncio.wrap_future(future)])
        return future.result()

    def close(self) -> None:
        """End the thread once its work is done."""
        self._executor.shutdown(wait=False)
