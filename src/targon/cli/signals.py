"""A role runs until the operator asks it to stop: once politely, twice for good."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio
import structlog

logger = structlog.get_logger(__name__)


async def run_until_signalled(
    run: Callable[[], Awaitable[None]], stop: Callable[[], None] | None = None
) -> None:
    """Run a role; the first SIGINT or SIGTERM calls ``stop``, the second (or the first, without it) cancels it."""
    async with anyio.create_task_group() as group:
        group.start_soon(_listen, stop, group.cancel_scope)
        await run()
        group.cancel_scope.cancel()


async def _listen(stop: Callable[[], None] | None, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            logger.info("stopping", signal=signal.Signals(number).name)
            if stop is None:
                scope.cancel()
                return
            stop()
            stop = None
