"""A websocket proxy before a node, over real sockets, that cuts the line when it is told to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType, web


class CuttingProxy:
    """Passes on what is said, request by request, and can break in the middle of one."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._sockets: list[web.Request] = []
        self.cuts: dict[str, str] = {}
        """By the method of a request: ``before`` or ``after`` the node hears of it; each cut happens once."""
        self.deaf = False
        """Takes requests and answers none."""
        self.connections = 0
        self.url = ""

    def cut_all(self) -> None:
        """Break every connection that there is."""
        for request in self._sockets:
            _abort(request)
        self._sockets.clear()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        here = web.WebSocketResponse(max_msg_size=0)
        await here.prepare(request)
        self._sockets.append(request)
        self.connections += 1
        with suppress(ClientError, ConnectionError):
            async with (
                ClientSession() as session,
                session.ws_connect(self._node, max_msg_size=0) as there,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self._answer, there, here)
                await self._ask(request, here, there)
                tasks.cancel_scope.cancel()
        return here

    async def _ask(
        self, request: web.Request, here: web.WebSocketResponse, there: ClientWebSocketResponse
    ) -> None:
        async for message in here:
            if message.type is not WSMsgType.TEXT or self.deaf:
                continue
            asked = json.loads(message.data)
            method = asked["method"] if isinstance(asked, dict) else ""
            cut = self.cuts.pop(method, "")
            if cut != "before":
                await there.send_str(message.data)
            if cut == "after":
                await anyio.sleep(0.05)
            if cut:
                _abort(request)
                return

    async def _answer(self, there: ClientWebSocketResponse, here: web.WebSocketResponse) -> None:
        async for message in there:
            if message.type is WSMsgType.TEXT and not self.deaf:
                with suppress(ConnectionError):
                    await here.send_str(message.data)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@asynccontextmanager
async def cutting_proxy(node: str) -> AsyncIterator[CuttingProxy]:
    """A proxy before a node, until the block ends."""
    proxy = CuttingProxy(node)
    application = web.Application()
    application.router.add_get("/", proxy.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    proxy.url = f"ws://{host}:{port}"
    try:
        yield proxy
    finally:
        proxy.cut_all()
        await runner.cleanup()
