"""The gate of a neuron's server: an ASGI application that lets signed requests through to handlers.

In this order, so that what is cheap comes before what is dear and what is unproven costs nothing:

1. Before a byte of the body is read: path, method and content type; the body's declared size; the shape of
   the btauth/1 headers; that we are the receiver; that the nonce is fresh; that the policy admits the claimed
   hotkey; the limits per hotkey, per address and for all together.
2. Then the body, under a time limit and a least rate; the signature, which covers it; the replay store; and
   only now the hotkey's allowance is charged, so that nobody can spend another's.

A refusal is one small JSON answer. Where a body was not read the connection is closed after it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio
import structlog
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from targon.protocol.primitives import Hotkey
from targon.transport.auth import Claim, check_signature, read_claim
from targon.transport.body import read_body, too_large
from targon.transport.clock import Clock
from targon.transport.limits import Limiter, Limits, address_key
from targon.transport.metrics import ServerMetrics
from targon.transport.nonces import MemoryNonceStore, NonceStore
from targon.transport.refusals import ClientGone, Code, Refusal
from targon.transport.replies import send_json

requests = logging.getLogger("targon.requests")
"""A line for each request, which only somebody who traces the process sees."""

LINGER_S = 1.0
"""How long a refused sender may go on sending what nobody reads: closing at once would reset the connection
under it, and it would never see why it was refused."""
LINGER_BYTES = 1 << 20

Headers = Mapping[bytes, bytes]
"""By name in lower case; of one that came twice, the first."""

Policy = Callable[[Hotkey], None]
"""Whether a claimed hotkey may ask at all: raises ``Refusal`` if not. Must decide at once, without I/O."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that is proven to come from ``caller``."""

    caller: Hotkey
    body: bytes
    query: str = ""
    """What stands behind the path's ``?``, as it was sent and signed; empty where the route takes none."""


Handler = Callable[[SignedRequest, Receive, Send], Awaitable[None]]
"""Answers a signed request. A ``Refusal`` that it raises before it answered becomes the answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path that is served."""

    method: str
    handler: Handler
    takes_body: bool
    takes_query: bool = False
    """Whether the path may be followed by ``?`` and a query, which its handler reads."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request of somebody of whom nothing is known but the address."""

    address: str
    """As far as it counts as one caller."""
    more: str = ""
    """What stands behind the route's path."""
    query: str = ""


OpenHandler = Callable[[OpenRequest, Receive, Send], Awaitable[None]]
"""Answers whoever asks."""


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """One path that is served to everybody, by ``GET`` and without a signature. An address's limits hold, and those of
    what needs no signature."""

    handler: OpenHandler
    takes_query: bool = False
    takes_more: bool = False
    """Whether the path ends in ``/``, and its handler reads what follows."""


class Gate:
    """Admission in two steps, in front of handlers. An ASGI application.

    Args:
        receiver: our own hotkey.
        routes: by path. Paths are matched as they were sent; those whose route takes none have no query.
        policy: who may ask; see :data:`Policy`.
        open_routes: by path, what needs no signature: small fixed JSON answers (a liveness probe), and handlers.
        nonces: shared by every process that serves as ``receiver``; by default this process's own memory.
    """

    def __init__(
        self,
        *,
        receiver: Hotkey,
        routes: Mapping[str, Route],
        policy: Policy,
        limits: Limits,
        registry: CollectorRegistry,
        clock: Clock | None = None,
        nonces: NonceStore | None = None,
        open_routes: Mapping[str, bytes | OpenRoute] | None = None,
    ) -> None:
        self._receiver = receiver
        self._routes = routes
        self._open_routes = open_routes or {}
        self._policy = policy
        self._limits = limits
        self._clock = clock or Clock()
        self._nonces = nonces or MemoryNonceStore(
            retention_s=limits.nonce_retention_s,
            max_entries=limits.max_nonces,
            monotonic_s=self._clock.monotonic_s,
        )
        self._hotkeys = Limiter(limits.per_hotkey, "hotkey", self._clock.monotonic_s)
        self._addresses = Limiter(limits.per_address, "address", self._clock.monotonic_s)
        self._open_addresses = Limiter(limits.per_open_address, "address", self._clock.monotonic_s)
        self._metrics = ServerMetrics(registry)
        self._running = 0
        self._log = structlog.get_logger("targon.transport")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(receive, send, scope["headers"])
        try:
            await self._serve(scope, exchange)
        except Refusal as refusal:
            await self._refuse(exchange, refusal)
        except ClientGone:
            self._metrics.abandoned()
        except Exception:  # noqa: BLE001 - the edge: whatever a handler broke on must not be shown to the caller
            self._log.exception("request failed", path=scope["path"][:80])
            await self._refuse(exchange, Refusal(Code.INTERNAL, "something broke here; it was logged"))
        finally:
            requests.debug(
                "served %s %a: %s", scope["method"], scope["path"][:80], exchange.status or "no answer"
            )

    async def _serve(self, scope: Scope, exchange: _Exchange) -> None:
        target, method = _target(scope), scope["method"]
        _check_headers(target, scope["headers"], self._limits.max_header_bytes)
        address = address_key(scope["client"][0]) if scope.get("client") else "local"
        if method == "GET" and await self._serve_openly(target, address, exchange):
            return
        path, query = self._split(target)
        route = self._route(exchange.headers, path, method)
        claim = self._claim(scope)
        self._hotkeys.check(claim.hotkey)
        with self._addresses.slot(address):
            self._enter()
            try:
                body = await read_body(exchange.receive, self._limits)
                exchange.has_body = False
                await self._authenticate(claim, body, method, target)
                with self._hotkeys.slot(claim.hotkey):
                    self._metrics.admitted(path)
                    request = SignedRequest(claim.hotkey, body, query)
                    await route.handler(request, exchange.receive, exchange.send)
            finally:
                self._leave()

    async def _serve_openly(self, target: str, address: str, exchange: _Exchange) -> bool:
        """Answer what needs no signature; False if this does."""
        path, mark, query = target.partition("?")
        more = ""
        route = self._open_routes.get(path)
        if route is None:
            above, slash, more = path.rpartition("/")
            path = above + slash
            route = self._open_routes.get(path)
            if not isinstance(route, OpenRoute) or not route.takes_more or not more:
                return False
        if mark and not (isinstance(route, OpenRoute) and route.takes_query):
            return False
        with self._addresses.slot(address):
            if isinstance(route, bytes):
                await send_json(exchange.send, 200, route)
                return True
            _check_size(exchange.headers, 0)
            self._enter()
            try:
                self._metrics.admitted(path)
                with self._open_addresses.slot(address):
                    request = OpenRequest(address, more, query)
                    await route.handler(request, exchange.receive, exchange.send)
            finally:
                self._leave()
        return True

    def _split(self, target: str) -> tuple[str, str]:
        """A target's path and query. Where the route takes no query, one that comes is no path of ours."""
        path, _, query = target.partition("?")
        route = self._routes.get(path)
        return (path, query) if route is not None and route.takes_query else (target, "")

    def _route(self, headers: Headers, path: str, method: str) -> Route:
        route = self._routes.get(path)
        if route is None:
            raise Refusal(Code.NO_SUCH_PATH, "there is nothing here", got=path, expected=sorted(self._routes))
        if method != route.method:
            raise Refusal(
                Code.METHOD_NOT_ALLOWED,
                f"{path} takes {route.method}",
                got=method,
                expected=route.method,
                headers=(("allow", route.method),),
            )
        _check_size(headers, self._limits.max_body_bytes if route.takes_body else 0)
        if route.takes_body:
            _check_media_type(headers)
        return route

    def _claim(self, scope: Scope) -> Claim:
        claim = read_claim(
            scope["headers"],
            receiver=self._receiver,
            arrived_ns=self._clock.now_ns(),
            max_age_s=self._limits.max_age_s,
            allowed_skew_s=self._limits.allowed_skew_s,
        )
        self._policy(claim.hotkey)
        return claim

    def _enter(self) -> None:
        if self._running >= self._limits.max_concurrent:
            raise Refusal(
                Code.OVERLOADED,
                "too many requests are being worked on; try again",
                got=self._running + 1,
                expected=f"at most {self._limits.max_concurrent} at once",
                retry_after_s=1.0,
            )
        self._running += 1
        self._metrics.running(self._running)

    def _leave(self) -> None:
        self._running -= 1
        self._metrics.running(self._running)

    async def _authenticate(self, claim: Claim, body: bytes, method: str, target: str) -> None:
        check_signature(claim, body, method=method, target=target, receiver=self._receiver)
        if not await self._nonces.check_and_store(claim.hotkey, claim.nonce_ns):
            raise Refusal(
                Code.REPLAYED,
                "this nonce was accepted from this hotkey before; sign each try anew",
                got=claim.nonce_ns,
                expected="a nonce of its own for every request",
            )

    async def _refuse(self, exchange: _Exchange, refusal: Refusal) -> None:
        self._metrics.refused(refusal.code)
        if exchange.started:
            return
        headers = refusal.header_pairs()
        if not exchange.has_body:
            await send_json(exchange.send, refusal.status, refusal.body(), headers)
            return
        headers.append(("connection", "close"))
        await send_json(exchange.send, refusal.status, refusal.body(), headers, last=False)
        if refusal.code is not Code.BODY_TOO_SLOW:
            await exchange.discard()
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})


class _Exchange:
    """One request's two ends, and how far they are."""

    def __init__(self, receive: Receive, send: Send, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.receive = receive
        self.headers = dict(reversed(headers))
        self._send = send
        self.started = False
        self.status: int | None = None
        self.has_body = _declares_body(self.headers)
        """Whether a body is (or may be) still to be read."""

    async def send(self, message: Message) -> None:
        self.started = True
        self.status = message.get("status", self.status)
        await self._send(message)

    async def discard(self) -> None:
        """Let what is still being sent run out, within bounds."""
        dropped = 0
        with anyio.move_on_after(LINGER_S):
            while dropped <= LINGER_BYTES:
                message = await self.receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                dropped += len(message.get("body", b""))


def _target(scope: Scope) -> str:
    """The request target as it was sent and signed."""
    target: bytes = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    return target.decode("latin-1")


def _declares_body(headers: Headers) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length") not in (None, b"0")


def _check_headers(target: str, headers: Sequence[tuple[bytes, bytes]], limit: int) -> None:
    """The server under us bounds headers only while they are incomplete."""
    size = len(target) + sum([len(name) + len(value) for name, value in headers])
    if size > limit:
        raise Refusal(
            Code.HEADERS_TOO_LARGE,
            "the headers are too large",
            got=f"{size} bytes",
            expected=f"at most {limit} bytes",
        )


def _check_size(headers: Headers, limit: int) -> None:
    """A declared size is refused here; a chunked body, which declares none, is cut off while it is read."""
    if b"transfer-encoding" in headers:
        if limit == 0:
            raise too_large("a chunked body", 0)
        return
    length = headers.get(b"content-length")
    if length is None:
        if limit:
            raise Refusal(Code.LENGTH_REQUIRED, "say how long the body is", expected="Content-Length")
        return
    # The server under us let only digits through.
    if len(length) > 18 or int(length) > limit:
        raise too_large(f"{length[:20].decode('latin-1')} bytes", limit)


def _check_media_type(headers: Headers) -> None:
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise Refusal(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON, and say so",
            got=media_type.decode("latin-1") or "no Content-Type",
            expected="application/json",
        )
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise Refusal(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "the body must not be compressed",
            got=encoding.decode("latin-1"),
            expected="no Content-Encoding",
        )
