"""The three forms of an answer: one JSON value, lines of JSON, or a stream of server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Final

import anyio.lowlevel
from starlette.types import Send

from targon.protocol.messages import GenerateResponse, TokenEvent
from targon.transport.refusals import Refusal

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
DONE = "done"
TURN_EVENTS = 32
"""Events that are sent before others have their turn, if there are so many at once."""
ERROR = "error"


async def send_json(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[str, str]] = (), *, last: bool = True
) -> None:
    """Send a whole answer. ``last=False`` keeps the exchange open although the client has all of it."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": _encoded(
                [
                    ("content-type", JSON),
                    ("content-length", str(len(body))),
                    ("cache-control", "no-store"),
                    *headers,
                ]
            ),
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def send_lines(send: Send, pieces: AsyncIterable[bytes]) -> None:
    """Send lines of JSON as they come. Each piece is whole lines, with their line breaks.

    The first piece is waited for before the answer begins, so whatever goes wrong before it can still be refused.
    """
    started = False
    async for piece in pieces:
        if not started:
            started = True
            headers = _encoded([("content-type", JSON_LINES), ("cache-control", "no-store")])
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventStream:
    """A streamed answer: a token event each, then ``done`` with the signed response, or ``error``.

    The first event starts the answer, so whatever goes wrong before it can still be refused with a status.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._in_turn = 0

    async def token(self, event: TokenEvent) -> None:
        await self._event(b"data: " + event.model_dump_json().encode() + b"\n\n")
        # The server under us takes bytes without waiting, those of a client that left too: give others their
        # turn, or an engine that never waits would never hear that its client is gone.
        self._in_turn += 1
        if self._in_turn >= TURN_EVENTS:
            self._in_turn = 0
            await anyio.lowlevel.checkpoint()

    async def done(self, response: GenerateResponse) -> None:
        await self._event(f"event: {DONE}\ndata: ".encode() + response.to_bytes() + b"\n\n", last=True)

    async def error(self, refusal: Refusal) -> None:
        await self._event(f"event: {ERROR}\ndata: ".encode() + refusal.body() + b"\n\n", last=True)

    async def _event(self, data: bytes, *, last: bool = False) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


_STREAM_HEADERS: Final = _encoded(
    [("content-type", EVENT_STREAM), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
)
