"""Requests to one address. Most are sent on connections of our own (:mod:`targon.http`), at a third of what aiohttp's
cost; https, redirects, and addresses that take some reading are left to aiohttp.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
from pydantic import TypeAdapter

from targon import __version__
from targon.http import Broken, Connection, Key, Malformed, Pool

KEEP_S: Final = 4.0
"""Seconds for which an idle connection is kept: less than servers do (uvicorn's 5), so that few are found closed."""

_BODY: Final[TypeAdapter[Mapping[str, Any]]] = TypeAdapter(Mapping[str, Any])
"""Writes JSON three times as fast as Python does."""

_PLAIN = re.compile(
    r"http://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]+))?(?P<path>(?:/[A-Za-z0-9_~-]+)*)"
)


class NoConnection(Exception):
    """None came about, and why."""


class BrokenOff(Exception):
    """The answer, or what should have been one, ended before it was whole."""


class Unanswered(BrokenOff):
    """The connection ended before anything came: it may have lain idle for too long."""


class Response(Protocol):
    """An answer whose head is here."""

    status: int

    async def part(self, wait_s: float) -> bytes:
        """What has come of its body, at least one byte; empty at its end.

        Raises:
            TimeoutError: if nothing came in time.
            BrokenOff: if it ended before it was whole.
        """
        ...

    def close(self) -> None:
        """Let it go; one that was not read to its end tells the engine to stop working on it."""
        ...


class Web:
    """HTTP to one address. An async context manager.

    Args:
        url: scheme, host, port and, where a proxy wants one, a path.
        key: sent as a bearer token.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.key = key or ""
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        found = _PLAIN.fullmatch(self.url)
        self._pool: Pool | None = None
        self._to: Key | None = None
        if found is not None:
            host = found["host"]
            self._to = host.strip("[]"), int(found["port"] or 80), None
            self._path = found["path"]
            lines = [
                f"Host: {host}" + (f":{found['port']}" if found["port"] else ""),
                *(f"{name}: {value}" for name, value in self._headers.items()),
                f"User-Agent: targon/{__version__}",
                "Accept: */*",
                "Accept-Encoding: identity",
            ]
            self._head = "\r\n".join(lines)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_S)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
        if self._to is not None:
            self._pool = Pool(keep_s=KEEP_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        await self._session.close()

    async def send(self, method: str, route: str, body: Mapping[str, Any] | None, wait_s: float) -> Response:
        """Ask, and wait for the answer's head.

        Raises:
            TimeoutError: if it did not come in time.
            NoConnection, BrokenOff: as they say.
        """
        data = None if body is None else _BODY.dump_json(body)
        if self._pool is not None and self._to is not None and route.isascii():
            response = await self._send_plain(self._pool, self._to, method, route, data, wait_s)
            if not 300 <= response.status < 400:
                return response
            response.close()
        return await self._send_any(method, route, data, wait_s)

    async def _send_plain(
        self, pool: Pool, to: Key, method: str, route: str, data: bytes | None, wait_s: float
    ) -> _OwnResponse:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        about = "" if data is None else f"\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        head = f"{method} {self._path}{route} HTTP/1.1\r\n{self._head}{about}\r\n\r\n".encode()
        try:
            connection = await pool.take(to, wait_s)
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise
            raise NoConnection(_why(error)) from error
        response = _OwnResponse(pool, to, connection)
        try:
            connection.send(head + (data or b""))
            await response.head(until_s - loop.time())
        except BaseException:
            response.close()
            raise
        return response

    async def _send_any(self, method: str, route: str, data: bytes | None, wait_s: float) -> Response:
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(wait_s):
                response = await self._session.request(
                    method, f"{self.url}{route}", data=data, headers=headers
                )
        except aiohttp.ClientConnectorError as error:
            raise NoConnection(_why(error.os_error)) from error
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise Unanswered(str(error) or type(error).__name__) from error
        except aiohttp.ClientError as error:
            raise BrokenOff(str(error) or type(error).__name__) from error
        return _TheirResponse(response)


class _OwnResponse:
    """On a connection of our own."""

    def __init__(self, pool: Pool, to: Key, connection: Connection) -> None:
        self._pool = pool
        self._to = to
        self._connection = connection
        self._closed = False
        self.status = 0

    async def head(self, wait_s: float) -> None:
        connection = self._connection
        try:
            await connection.head(wait_s)
        except (Broken, Malformed) as error:
            kind = Unanswered if isinstance(error, Broken) and connection.unanswered else BrokenOff
            raise kind(str(error)) from error
        encoding = connection.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise BrokenOff(f"got Content-Encoding {encoding[:40]!r}, expected none")
        self.status = connection.status

    async def part(self, wait_s: float) -> bytes:
        try:
            return await self._connection.piece(wait_s)
        except (Broken, Malformed) as error:
            raise BrokenOff(str(error)) from error

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.give(self._to, self._connection)


class _TheirResponse:
    """On one of aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    async def part(self, wait_s: float) -> bytes:
        try:
            async with asyncio.timeout(wait_s):
                return await self._response.content.readany()
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOff(str(error) or type(error).__name__) from error

    def close(self) -> None:
        self._response.close()


def _why(error: OSError) -> str:
    """Why there is no connection, in the system's words."""
    if isinstance(error, socket.gaierror) or not error.errno or error.errno < 0:
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)
