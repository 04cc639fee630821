"""One connection of the line: frames in, frames out, and both sides held to what the other can take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from targon.gateway.dispatch_buffer import Bell
from targon.gateway.line.frames import HEAD_BYTES, MAX_FRAME_BYTES

HIGH_BYTES = 1 << 18
"""Frames that were received and not read yet; over it, nothing more is received."""
BATCH_BYTES = 1 << 16
"""Frames that were sent and not written yet; over it, who sends waits."""


class LineBroke(Exception):
    """The connection is gone, or what came over it is no frame."""


class Wire(asyncio.Protocol):
    """A connection. One task reads it, one task writes it.

    Frames that are sent in one go are written in one go: a token costs no system call of its own where several came
    together.

    Args:
        made: is called once it is connected.
        lost: is called once it is gone.
        max_frame_bytes: of what the other side sends.
    """

    def __init__(
        self,
        *,
        made: Callable[[Wire], None] | None = None,
        lost: Callable[[Wire], None] | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._made = made
        self._when_lost = lost
        self._max_frame = max_frame_bytes
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._frames: deque[tuple[int, bytes]] = deque()
        self._held = 0
        self._reading = True
        self._came = Bell()
        self._out: list[bytes] = []
        self._queued = 0
        self._writing = True
        self._went = Bell()
        self.lost = False
        self.hung_up: Callable[[], object] | None = None
        """Is called when the other side goes away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._made is not None:
            self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's form
        self.lost = True
        self._came.ring()
        self._went.ring()
        if self.hung_up is not None:
            self.hung_up()
        if self._when_lost is not None:
            self._when_lost(self)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= HEAD_BYTES:
            size = int.from_bytes(received[start : start + 4], "big")
            if size > self._max_frame:
                self.abort()
                return
            end = start + HEAD_BYTES + size
            if end > len(received):
                break
            self._frames.append((received[start + 4], bytes(received[start + HEAD_BYTES : end])))
            self._held += size + HEAD_BYTES
            start = end
        if start:
            del received[:start]
            self._came.ring()
            transport = self._transport
            if (
                self._held > HIGH_BYTES
                and self._reading
                and transport is not None
                and not transport.is_closing()
            ):
                self._reading = False
                transport.pause_reading()

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._went.ring()

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: its kind and its payload.

        Raises:
            LineBroke: there is none, and none will come.
        """
        while not self._frames:
            if self.lost:
                raise LineBroke
            await self._came.wait()
        kind, payload = self._frames.popleft()
        self._held -= len(payload) + HEAD_BYTES
        transport = self._transport
        if not self._reading and self._held <= HIGH_BYTES // 2 and transport is not None:
            self._reading = True
            if not transport.is_closing():
                transport.resume_reading()
        return kind, payload

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame, when the task that runs has nothing more to send."""
        frame = b"%b%c%b" % (len(payload).to_bytes(4, "big"), kind, payload)
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(frame)
        self._queued += len(frame)

    @property
    def clogged(self) -> bool:
        """Whether who sends should wait until the other side has taken what was sent."""
        return not self._writing or self._queued > BATCH_BYTES

    async def taken(self, within_s: float) -> None:
        """Wait until there is room again.

        Raises:
            LineBroke: the other side is gone, or took nothing for too long.
        """
        until_s = asyncio.get_running_loop().time() + within_s
        while self.clogged:
            if self.lost or asyncio.get_running_loop().time() >= until_s:
                raise LineBroke
            await self._went.wait(until_s)

    def close(self) -> None:
        """Go away once all that was sent is written."""
        if self._transport is not None and not self.lost:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Go away at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self.lost:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._queued = 0
        self._went.ring()
