"""Whether a connection takes what is written to it."""

from __future__ import annotations

import asyncio


class WriteFlow:
    """Paused while what was written and not sent yet is as much as the transport should hold."""

    __slots__ = ("_resumed", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._resumed: asyncio.Event | None = None

    def pause(self) -> None:
        self.paused = True
        self._resumed = asyncio.Event()

    def resume(self) -> None:
        self.paused = False
        if self._resumed is not None:
            self._resumed.set()

    async def resumed(self) -> None:
        if self._resumed is not None:
            await self._resumed.wait()
