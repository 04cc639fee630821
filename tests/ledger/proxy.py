"""What stands between a client and a Redis in tests: it breaks connections at chosen places, or speaks TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from targon.ledger.redis import RedisAddress


class Proxy:
    """Passes bytes on, both ways, until it is told otherwise."""

    def __init__(self, target: RedisAddress) -> None:
        self._target = target
        self.address = target
        self.losing_answers_to = b""
        """Once a request holds these bytes, it is passed on, and the connection cut before the answer."""
        self.holding_back = asyncio.Event()
        self.holding_back.set()
        """While this is clear, requests arrive, and no answers."""
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.close()
            return
        unanswered = asyncio.Event()
        answers = asyncio.ensure_future(self._answer(there, writer, unanswered))
        try:
            while data := await reader.read(1 << 16):
                if self.losing_answers_to and self.losing_answers_to in data:
                    self.losing_answers_to = b""
                    self.lost += 1
                    unanswered.set()
                back.write(data)
                await back.drain()
        except OSError:
            pass
        finally:
            answers.cancel()
            back.close()
            writer.close()

    async def _answer(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, unanswered: asyncio.Event
    ) -> None:
        try:
            while (data := await there.read(1 << 16)) and not unanswered.is_set():
                await self.holding_back.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()


@asynccontextmanager
async def proxy(target: RedisAddress, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy, None]:
    """A proxy before a Redis; its address has the password of the Redis behind it."""
    between = Proxy(target)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    between.address = replace(target, port=port, tls=tls is not None)
    try:
        yield between
    finally:
        between.holding_back.set()
        server.close()
