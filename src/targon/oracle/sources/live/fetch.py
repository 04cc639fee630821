"""One request to a host: bounded in time and size, without cookies, and to no address that isn't public.

Nothing is followed and nothing is decided here. The address that was looked at is the one that is connected to, since
it is the resolver that refuses.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from targon import __version__
from targon.oracle.sources.live.limits import LIVE_LIMITS, LiveLimits
from targon.oracle.sources.live.robots import PRODUCT
from targon.oracle.sources.web import is_public

KINDS: Final = ("text/html", "text/plain")
_GZIP: Final = b"\x1f\x8b"


class Failed(Exception):
    """An answer that can't be had or used. It is caught within the crawl.

    Args:
        reason: one of ``store.COUNTED``.
        again: whether it could be had another time.
    """

    def __init__(self, reason: str, detail: str = "", *, again: bool = False) -> None:
        self.reason = reason
        self.detail = detail
        self.again = again
        super().__init__(f"{reason} {detail}".strip())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered."""

    status: int
    kind: str
    """The media type, without its parameters."""
    charset: str | None
    body: bytes
    """Unpacked; empty unless the status is 200 and the kind one that was asked for."""
    headers: Mapping[str, Sequence[str]]
    """All values of each, by their names in lower case."""

    def header(self, name: str) -> str:
        """The first value of a header; empty where there is none."""
        return next(iter(self.headers.get(name, ())), "")

    def retry_after_s(self, now: datetime) -> float | None:
        """Seconds that the host asks to be left alone; None where it doesn't."""
        value = self.header("retry-after").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - now).total_seconds())


class _Guarded(ThreadedResolver):
    """Names to addresses, all of which are public."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)  # type: ignore[arg-type]
        for result in found:
            if not is_public(result["host"]):
                raise OSError(f"{host} is at {result['host']}, which is no public address")
        return found


class Fetcher:
    """Requests, one connection for each.

    Args:
        contact: by which those whose hosts are asked reach the operator.
    """

    def __init__(
        self, session: aiohttp.ClientSession, *, allow_private: bool, limits: LiveLimits = LIVE_LIMITS
    ) -> None:
        self._session = session
        self._allow_private = allow_private
        self._limits = limits

    async def get(
        self,
        url: str,
        headers: Mapping[str, str],
        most: int,
        kinds: Sequence[str] = KINDS,
        *,
        cut: bool = False,
    ) -> Answer:
        """Ask for an address.

        Args:
            most: bytes of the answer, as it comes and unpacked.
            kinds: of what the body is read; none: of everything.
            cut: whether what is longer is cut, not refused.

        Raises:
            Failed: if there is no answer, or it isn't within the bounds.
        """
        host = urlsplit(url).hostname or ""
        try:
            if not self._allow_private and _is_address(host) and not is_public(host):
                raise Failed("private", f"{host} is no public address")
            async with self._session.get(
                URL(url, encoded=True), headers=headers, allow_redirects=False
            ) as response:
                return await self._read(response, most, kinds, cut)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if "is no public address" in str(error):
                raise Failed("private", str(error)) from error
            reason = "slow" if isinstance(error, TimeoutError) else "unreachable"
            raise Failed(reason, f"{type(error).__name__} {error}", again=True) from error

    async def _read(
        self, response: aiohttp.ClientResponse, most: int, kinds: Sequence[str], cut: bool
    ) -> Answer:
        headers: dict[str, list[str]] = {}
        for name, value in response.headers.items():
            # bytes that are no text come as halves of characters, which nothing can be done with
            headers.setdefault(name.lower(), []).append(value.encode("utf-8", "replace").decode())
        about = Message()
        about["content-type"] = response.headers.get("Content-Type", "")
        kind = about.get_content_type() if response.headers.get("Content-Type") else ""
        charset = about.get_content_charset()
        body = b""
        if response.status == 200:
            if kinds and kind not in kinds:
                raise Failed("other_kind", kind[:80])
            if not cut and (response.content_length or 0) > most:
                raise Failed("large", f"{response.content_length} bytes")
            body = await _body(response, most, cut)
        return Answer(response.status, kind, charset, body, headers)


async def _body(response: aiohttp.ClientResponse, most: int, cut: bool) -> bytes:
    unpack = _Unpacker(response.headers.get("Content-Encoding", ""), most)
    came = 0
    async for piece in response.content.iter_any():
        came += len(piece)
        unpack.feed(piece)
        if came > most or len(unpack.whole) > most:
            if cut:
                return bytes(unpack.whole[:most])
            packed = unpack.packed and len(unpack.whole) > most
            raise Failed("bomb" if packed else "large", f"more than {most} bytes")
    if unpack.unfinished:
        raise Failed("corrupt", "compressed data that ends too early", again=True)
    return bytes(unpack.whole)


class _Unpacker:
    """What comes compressed, unpacked no further than one byte above a bound."""

    def __init__(self, encoding: str, most: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise Failed("other_kind", f"Content-Encoding {encoding[:40]!r}")
        self.packed = encoding not in {"", "identity"}
        self.whole = bytearray()
        self._deflate = encoding == "deflate"
        self._most = most
        self._stream: zlib._Decompress | None = None

    @property
    def unfinished(self) -> bool:
        return self._stream is not None and not self._stream.eof

    def feed(self, piece: bytes) -> None:
        if not self.packed:
            self.whole += piece
            return
        while piece and len(self.whole) <= self._most:
            if self._stream is None or (self._stream.eof and piece.startswith(_GZIP)):
                self._stream = zlib.decompressobj(self._bits(piece))
            elif self._stream.eof:
                return  # bytes behind the end, as some servers send
            try:
                self.whole += self._stream.decompress(piece, self._most + 1 - len(self.whole))
            except zlib.error as error:
                raise Failed("corrupt", str(error)) from error
            piece = self._stream.unused_data if self._stream.eof else b""

    def _bits(self, piece: bytes) -> int:
        if not self._deflate:
            return 31
        # deflate should come as zlib's format, and often comes bare
        zlib_s = piece[0] & 15 == 8 and (len(piece) < 2 or (piece[0] << 8 | piece[1]) % 31 == 0)
        return 15 if zlib_s else -15


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit()


@asynccontextmanager
async def fetching(
    contact: str, *, allow_private: bool, limits: LiveLimits = LIVE_LIMITS
) -> AsyncIterator[Fetcher]:
    """A fetcher whose every request says who we are."""
    connector = aiohttp.TCPConnector(
        resolver=ThreadedResolver() if allow_private else _Guarded(), force_close=True, limit_per_host=1
    )
    timeout = aiohttp.ClientTimeout(
        total=limits.request_s, sock_connect=limits.connect_s, sock_read=limits.idle_s
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={
            "User-Agent": f"{PRODUCT}/{__version__} (+{contact})",
            "Accept": ", ".join(KINDS),
            "Accept-Encoding": "gzip, deflate",
        },
    ) as session:
        yield Fetcher(session, allow_private=allow_private, limits=limits)
