"""The gateway as an ASGI application: the two routes that generate, and before the others what all have in common.

Requests for answers go past the framework that serves everything else: they are many, and each has a stream of small
pieces. The framework's document names them too, from the same models.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from targon.gateway.accounts import Account, Need, estimated_prompt
from targon.gateway.api.answering import Answering
from targon.gateway.api.cors import Cors
from targon.gateway.api.exchange import Exchange, begin
from targon.gateway.api.metrics import GatewayMetrics
from targon.gateway.api.reading import Request, read_chat, read_completion
from targon.gateway.errors import ServiceFailed
from targon.gateway.keyring import KeyRing, require
from targon.gateway.keys import Usage
from targon.gateway.ports import Orders
from targon.gateway.refusals import SERVER, ApiError, of_service, stopping
from targon.transport import ClientGone, Limits
from targon.transport.errands import DeskError
from targon.transport.served_request import ServedRequest

logger = structlog.get_logger(__name__)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_READERS: dict[str, Callable[[bytes], Request]] = {CHAT: read_chat, COMPLETIONS: read_completion}
_ROUTES = (CHAT, COMPLETIONS, "/v1/models", "/v1/receipts", "/healthz", "/openapi.json", "/docs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is taken on."""

    max_running: int = 12_000
    """Requests being answered at the same time, by whomever."""
    answer_s: float = 900.0
    """A request ends after this, whatever it does. Provers have deadlines of their own, long before."""
    left_s: float = 20.0
    """An answer that has begun is read on for so long after its user left, and he pays for what comes: else he could
    leave before the last token, and have an answer for which its prover gets nothing."""


class Handler:
    """Serves users."""

    def __init__(
        self,
        orders: Orders,
        keys: KeyRing,
        *,
        limits: Limits,
        bounds: Bounds,
        cors: Cors,
        metrics: GatewayMetrics,
        rest: ASGIApp,
        access_log: bool,
    ) -> None:
        """Build it.

        Args:
            rest: serves every other route.
        """
        self._orders = orders
        self._keys = keys
        self._limits = limits
        self._bounds = bounds
        self._cors = cors
        self._metrics = metrics
        self._rest = rest
        self._access_log = access_log
        self._working: set[asyncio.Task[None]] = set()
        self._taken_on = 0
        self._cutting = False
        self.draining = False
        """Whether new requests are refused, because the gateway is about to end."""

    @property
    def running(self) -> int:
        """Requests being answered now."""
        return len(self._working)

    def cut(self) -> None:
        """End what is still running, with an error that says so."""
        self._cutting = True
        for task in self._working:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = begin(scope, time.monotonic(), self._cors.headers)
        path: str = scope["path"]
        reader = _READERS.get(path)
        try:
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in exchange.heard:
                await self._preflight(exchange, send)
            elif reader is not None and scope["method"] == "POST":
                await self._generate(exchange, reader, receive, send)
            else:
                await self._others(exchange, scope, receive, send)
        finally:
            self._ended(exchange, path)

    async def _generate(
        self, exchange: Exchange, reader: Callable[[bytes], Request], receive: Receive, send: Send
    ) -> None:
        try:
            self._let_in(exchange)
        except ApiError as error:
            await exchange.fail(send, error)
            return
        account = exchange.account
        assert account is not None
        try:
            request = reader(await exchange.body(receive, self._limits))
            require(account, "inference", request.model)
            await self._while_there(exchange, request, receive, send)
        except ApiError as error:
            await exchange.fail(send, error)
        except ClientGone:
            self._metrics.abandoned()
        finally:
            self._taken_on -= 1
            account.leave()
            self._metrics.running(len(self._working))

    async def _while_there(self, exchange: Exchange, request: Request, receive: Receive, send: Send) -> None:
        """Answer. A client that leaves is seen at once; what is sent to one goes nowhere."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        assert isinstance(receive, ServedRequest)  # no other server serves us
        given_up = False
        timer: asyncio.TimerHandle | None = None

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            task.cancel()

        def leave() -> None:
            nonlocal timer
            if not exchange.completed:
                self._metrics.abandoned()
                if exchange.begun:
                    timer = loop.call_later(self._bounds.left_s, give_up)
                else:
                    give_up()

        self._working.add(task)
        self._metrics.running(len(self._working))
        receive.on_leave(leave)
        try:
            await self._work(exchange, request, send)
        except asyncio.CancelledError:
            if not given_up or task.cancelling() > 1:
                raise  # the server ends it
        finally:
            receive.on_leave(None)
            self._working.discard(task)
            if timer is not None:
                timer.cancel()
            if given_up:
                task.uncancel()

    def _let_in(self, exchange: Exchange) -> None:
        if self.draining:
            raise stopping()
        account = self._keys.account(exchange.word(b"authorization") or None)
        exchange.account = account
        require(account, "inference")
        # those whose bodies are still on their way count as well
        if self._taken_on >= self._bounds.max_running:
            raise ApiError(
                503,
                "overloaded",
                f"the gateway is answering {self._taken_on} requests, which is all that it takes on",
                kind=SERVER,
                retry_after_s=1,
            )
        account.admit()
        self._taken_on += 1

    async def _work(self, exchange: Exchange, request: Request, send: Send) -> None:
        """Answer; never raises but when it is cancelled."""
        try:
            async with asyncio.timeout(self._bounds.answer_s):
                await self._answer(exchange, request, send)
        except ApiError as error:
            await self._failed(exchange, error, send)
        except (DeskError, ServiceFailed, TimeoutError) as error:
            await self._failed(exchange, of_service(error), send)
        except asyncio.CancelledError:
            if not self._cutting:
                raise
            await self._failed(exchange, stopping(), send)
        except Exception as error:  # noqa: BLE001 - a bug of ours must neither hang the user nor tell what was said
            where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            logger.error(
                "gateway_bug", request_id=exchange.request_id, kind=type(error).__name__, where=where
            )
            await self._failed(exchange, internal(exchange), send)

    async def _answer(self, exchange: Exchange, request: Request, send: Send) -> None:
        account = exchange.account
        assert account is not None
        request, need = self._reserve(account, request)
        answering = Answering(self._orders, request, exchange, int(self._keys.now_s()))
        left = False
        try:
            if request.stream:
                await answering.stream(send, account.headers())
                return
            body, headers = await answering.whole()
        except asyncio.CancelledError:
            left = not self._cutting
            raise
        finally:
            used = answering.used(left=left)
            self._count(exchange, used)
            account.settle(need, used.tokens)
        spent = b"%d" % (1000 * (time.monotonic() - exchange.started_s))
        await exchange.reply(
            send, 200, body, [*headers, *account.headers(), (b"openai-processing-ms", spent)]
        )

    def _reserve(self, account: Account, request: Request) -> tuple[Request, Need]:
        """Set aside what a request can use. Answers of any length become as short as limits and quotas ask."""
        now_s, answers = self._keys.now_s(), len(request.orders)
        prompts = Need(estimated_prompt(request.prompt_bytes, request.prompts), request.prompt_bound)
        longest = request.max_tokens
        if longest is None:
            served = (one for one in self._orders.models() if one.name == request.model)
            # a model that nobody serves is refused when it is ordered
            longest = next((one.default_tokens for one in served), 1)
            room = account.room(prompts, now_s=now_s) / answers
            if room < longest:
                longest = max(1, int(room))
                request = request.at_most(longest)
        need = prompts.and_answers(longest * answers)
        account.reserve(need, now_s=now_s)
        return request, need

    def _count(self, exchange: Exchange, used: Usage) -> None:
        assert exchange.account is not None
        exchange.tokens = used.prompt_tokens, used.completion_tokens
        self._keys.count(exchange.account, used)
        self._metrics.used(used.prompt_tokens, used.completion_tokens)

    async def _failed(self, exchange: Exchange, error: ApiError, send: Send) -> None:
        if exchange.status and not exchange.completed:
            self._metrics.broken_off()
        await exchange.fail(send, error)

    async def _preflight(self, exchange: Exchange, send: Send) -> None:
        wanted = exchange.heard.get(b"access-control-request-headers", b"")
        allowed = self._cors.preflight(exchange.heard.get(b"origin", b""), wanted)
        await exchange.reply(send, 403 if allowed is None else 200, b"", allowed or [])

    async def _others(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*exchange.base, *message.get("headers", ())]
            await send(message)

        await self._rest(scope, receive, with_headers)

    def _ended(self, exchange: Exchange, path: str) -> None:
        seconds = time.monotonic() - exchange.started_s
        route = next((known for known in _ROUTES if path == known or path.startswith(known + "/")), "other")
        self._metrics.ended(route, exchange.status, seconds)
        if self._access_log:
            account = exchange.account
            logger.info(
                "request",
                request_id=exchange.request_id,
                key=None if account is None else account.name,
                route=route,
                status=exchange.status,
                code=exchange.code or None,
                prompt_tokens=exchange.tokens[0],
                completion_tokens=exchange.tokens[1],
                seconds=round(seconds, 4),
            )


def internal(exchange: Exchange) -> ApiError:
    """What a user is told of a bug of ours."""
    return ApiError(
        500,
        "internal_error",
        f"something is wrong in the gateway; tell its operator the request id {exchange.request_id}",
        kind=SERVER,
    )
