"""Where a model computes: in one thread, whose helpers don't hold on to the processor while they wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

import anyio
import anyio.lowlevel

P = ParamSpec("P")
T = TypeVar("T")


OPENMP_SPINS = 3_000
"""How often an OpenMP helper looks for work before it sleeps.

libgomp's own choice suits a machine that runs nothing else: where processes outnumber cores, helpers that
spin for work keep the processor from the very thread that they wait for. On 2 cores, milliseconds per
decoding step (SmolLM2-135M in bf16; one engine alone, and three at once): as it comes 39 and 1,500; with
3,000 spins 47 and 180; with one thread per engine 60 and 98.
"""


def share_the_cores() -> None:
    """Set :data:`OPENMP_SPINS`, unless the environment says otherwise. Call before torch is imported."""
    os.environ.setdefault("GOMP_SPINCOUNT", str(OPENMP_SPINS))


class ModelThread:
    """Runs blocking functions, one after another, always in the same thread.

    anyio's own worker threads would do, were it not for OpenMP: it keeps a team of helpers for every
    thread that ever called it, and lets them wait far less eagerly once all teams together outnumber the
    cores. A model that moves from thread to thread decodes at half its speed (2 cores, SmolLM2-135M).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="targon-model")

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function there. Cancellation comes before it or after it: it cannot be interrupted."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        future = asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))
        with anyio.CancelScope(shield=True):
            await asyncio.wait([future])
        return future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread once its work is done."""
        self._executor.shutdown(wait=False)
