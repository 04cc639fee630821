"""A deadline for each of many waits in a row, for the price of one."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self


class Patience:
    """Cancels the block that it stands around when one of the block's waits takes too long.

    A timer of its own for each of an answer's tokens would cost more than the token. So there is one, which looks from
    time to time since when is waited, and is set anew only then.

    Args:
        timeout_s: how long any one wait may take.

    Attributes:
        lost: whether it was; the block has then ended where it waited.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._timer: asyncio.TimerHandle | None = None
        self.lost = False

    def begin(self) -> None:
        """A wait begins."""
        self._since_s = self._loop.time()

    def end(self) -> None:
        """It is over."""
        self._since_s = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._timer = self._loop.call_later(self._timeout_s, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost or self._task is None:
            return False
        # as asyncio's own timeouts do: whoever else cancelled the task meanwhile isn't done with it
        left = self._task.uncancel() - self._cancelling
        return kind is not None and issubclass(kind, asyncio.CancelledError) and left <= 0

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._since_s is None else self._since_s) + self._timeout_s
        if now < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        self.lost = True
        if self._task is not None:
            self._task.cancel()
