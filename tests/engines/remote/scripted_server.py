"""A server on 127.0.0.1 that answers as a test scripts it, and remembers what it was asked.

    script = {
        "GET /v1/models": [whole({"data": [{"id": "m"}]})],
        "POST /generate": [whole({"error": "busy"}, status=429), stream({"text": "a"}, {"text": "ab"})],
    }
    async with serving(script) as server, calling(server.url) as calls:
        ...
    assert server.asked("POST /generate")[0].body["text"] == "Hello"

Each request takes the next answer of its route; the last one is given again and again. A route that isn't in the
script is answered with 404. Where an answer depends on the request, a function of it stands in its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from targon.engines.remote.calls import Calls
from targon.engines.remote.web import Web


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    route: str
    """As in the script: ``POST /generate``."""
    headers: Mapping[str, str]
    body: Any
    """As JSON; None if there was none."""


@dataclass(frozen=True)
class Answer:
    """What the server does; made by :func:`whole` and :func:`stream`, or by hand for what no server should do."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[bytes] = ()
    """Written one by one, each as a chunk of its own."""
    delay_s: float = 0.0
    """Waited before the head of the answer, and before each part."""
    broken_off: bool = False
    """Whether the connection is closed in the middle, after the parts."""


Script = Mapping[str, Sequence[Answer | Callable[[Asked], Answer]]]


def whole(value: object, *, status: int = 200, delay_s: float = 0.0, broken_off: bool = False) -> Answer:
    """An answer in one piece: bytes as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = {"Content-Type": "application/json"}
    return Answer(status, headers, (data,), delay_s, broken_off)


def stream(*values: object, done: bool = True, delay_s: float = 0.0, broken_off: bool = False) -> Answer:
    """An answer of server-sent events, each a JSON value (bytes as they are).

    Args:
        done: whether ``[DONE]`` comes last.
        delay_s: waited before each event.
        broken_off: whether the connection is closed behind the last one.
    """
    data = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    parts = [b"data: " + one + b"\n\n" for one in data] + [b"data: [DONE]\n\n"] * done
    return Answer(200, {"Content-Type": "text/event-stream"}, parts, delay_s, broken_off)


class ScriptedServer:
    """Plays a script; made by :func:`serving`."""

    def __init__(self, script: Script) -> None:
        self._left = {route: list(answers) for route, answers in script.items()}
        self.url = ""
        self.requests: list[Asked] = []
        self.left_early = 0
        """How many answers the client didn't wait for the end of."""

    def asked(self, route: str) -> list[Asked]:
        """The requests to a route, in the order that they came."""
        return [one for one in self.requests if one.route == route]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Play the next answer of the request's route."""
        data = await request.read()
        asked = Asked(
            route=f"{request.method} {request.path}",
            headers=dict(request.headers),
            body=json.loads(data) if data else None,
        )
        self.requests.append(asked)
        answers = self._left.get(asked.route)
        if answers is None:
            return web.json_response({"error": f"no route {asked.route}"}, status=404)
        next_one = answers.pop(0) if len(answers) > 1 else answers[0]
        return await self._play(request, next_one if isinstance(next_one, Answer) else next_one(asked))

    async def _play(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        await asyncio.sleep(answer.delay_s)
        response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
        try:
            await response.prepare(request)
            for part in answer.parts:
                await asyncio.sleep(answer.delay_s)
                await response.write(part)
            if answer.broken_off and request.transport is not None:
                request.transport.abort()
            else:
                await response.write_eof()
        except ConnectionError:
            self.left_early += 1
        return response


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[ScriptedServer]:
    """A scripted server that listens until the block ends."""
    server = ScriptedServer(script)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with listening(app) as server.url:
        yield server


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """The address of an application that listens until the block ends."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def calling(url: str, *, timeout_s: float = 30.0, key: str | None = None) -> AsyncIterator[Calls]:
    """What a backend is built on."""
    async with Web(url, key) as engine:
        yield Calls(engine, timeout_s=timeout_s, max_requests=8, max_queue=8)
