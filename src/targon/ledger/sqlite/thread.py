"""A thread for one file's blocking calls.

A library's pool of threads takes two more turns of the event loop for each call, and under load every turn is a wait
behind others' work: more, in all, than the disk takes for an append.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

T = TypeVar("T")


class CallThread:
    """Makes blocking calls one at a time, in the order in which they were asked for, until it is stopped.

    It ends with the process as well: what it makes then must survive being cut off.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=self._make_calls, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """Its result. Once begun it is waited for, also where the caller is cancelled meanwhile.

        Raises:
            BaseException: whatever the function raises.
        """
        await checkpoint_if_cancelled()
        loop = asyncio.get_running_loop()
        made: asyncio.Future[T] = loop.create_future()
        self._calls.put(_Call(function, loop, made))
        with anyio.CancelScope(shield=True):
            await made
        return made.result()

    def stop(self) -> None:
        """End, once the calls before this are made."""
        self._calls.put(None)

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            call.make()


class _Call:
    """One call, and who waits for it."""

    __slots__ = ("_function", "_loop", "_made")

    def __init__(
        self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop, made: asyncio.Future[Any]
    ) -> None:
        self._function = function
        self._loop = loop
        self._made = made

    def make(self) -> None:
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self._tell(self._made.set_exception, error)
        else:
            self._tell(self._made.set_result, result)

    def _tell(self, settle: Callable[[Any], None], value: Any) -> None:  # noqa: ANN401 - the function's
        def tell() -> None:
            if not self._made.done():  # else who waited is gone
                settle(value)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(tell)
