"""One HTTP exchange: what of a request's headers matters, and the ways to reply."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from targon.gateway.accounts import Account
from targon.gateway.refusals import ApiError
from targon.transport.body import read_body
from targon.transport.limits import Limits
from targon.transport.refusals import Code, Refusal

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENTS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx passes each event on at once, instead of filling a buffer first
    (b"x-accel-buffering", b"no"),
]

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEARD = frozenset(
    {
        b"authorization",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"x-request-id",
        b"origin",
        b"targon-receipt",
        b"access-control-request-method",
        b"access-control-request-headers",
    }
)


@dataclass(slots=True)
class Exchange:
    """A request on its way, and what is known of the reply."""

    heard: dict[bytes, bytes]
    """Headers of the request that matter, by their names in small letters."""
    request_id: str
    base: Headers
    """Headers of every reply."""
    started_s: float
    """By the monotonic clock."""
    account: Account | None = None
    status: int = 0
    """Of the reply, once it has begun."""
    begun: bool = False
    """Whether a prover has begun to answer."""
    completed: bool = False
    """Whether the last of the reply is being sent: from here on a client that leaves has what it wanted."""
    code: str = ""
    """The error's code, where there was one."""
    tokens: tuple[int, int] = (0, 0)
    """Tokens of prompt and answers, for the access log."""

    def word(self, name: bytes) -> str:
        """A header as text; empty if it wasn't sent."""
        return self.heard.get(name, b"").decode("latin-1")

    @property
    def wants_all(self) -> bool:
        """Whether the whole signed answer is to come with the reply."""
        return self.heard.get(b"targon-receipt", b"").strip().lower() == b"full"

    async def body(self, receive: Receive, limits: Limits) -> bytes:
        """The request's body.

        Raises:
            ApiError: if it isn't JSON by its headers, is too large or comes too slowly.
            ClientGone: if the client left.
        """
        self._check_content()
        length = self.heard.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > limits.max_body_bytes:
            raise _too_large(f"{int(length[:20])} bytes", limits)
        try:
            return await read_body(receive, limits)
        except Refusal as refusal:
            if refusal.code is Code.BODY_TOO_LARGE:
                raise _too_large("more", limits) from None
            raise ApiError(408, "body_too_slow", "the body came too slowly; send it at once") from None

    async def start(self, send: Send, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status
        await send({"type": "http.response.start", "status": status, "headers": [*self.base, *headers]})

    async def reply(
        self, send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """A whole reply."""
        await self.start(send, status, [(b"content-length", b"%d" % len(body)), *headers])
        self.completed = True
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, send: Send, error: ApiError) -> None:
        """Say what is wrong: as the reply, or as the last event of one that has begun."""
        self.code = error.code
        if self.status == 0:
            limits = [] if self.account is None else self.account.headers()
            close = [(b"connection", b"close")] if error.status in {408, 413} else []
            await self.reply(send, error.status, error.body(), [JSON, *error.headers(), *limits, *close])
        elif not self.completed:
            self.completed = True
            event = b"data: " + error.body() + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": False})

    def _check_content(self) -> None:
        if b"content-encoding" in self.heard:
            raise ApiError(
                415, "unsupported_media_type", "the body is encoded; expected it as it is, without"
            )
        kind, _, rest = self.word(b"content-type").partition(";")
        charset = (
            rest.strip().lower().removeprefix("charset=").strip('"') if "charset" in rest.lower() else "utf-8"
        )
        if kind.strip().lower() != "application/json" or charset not in {"utf-8", "utf8"}:
            raise ApiError(
                415,
                "unsupported_media_type",
                f"content-type: got {self.word(b'content-type')[:60]!a}, expected application/json in UTF-8",
            )


def begin(scope: Scope, now_s: float, cors: Callable[[bytes], Headers]) -> Exchange:
    """What a request says of itself. Of a header that comes twice, the last counts."""
    heard = {name: value for name, value in scope["headers"] if name in _HEARD}
    given = heard.get(b"x-request-id", b"")
    request_id = given.decode() if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
    base: Headers = [(b"x-request-id", request_id.encode())]
    if b"origin" in heard:
        base += cors(heard[b"origin"])
    return Exchange(heard=heard, request_id=request_id, base=base, started_s=now_s)


def _too_large(got: str, limits: Limits) -> ApiError:
    return ApiError(
        413,
        "request_too_large",
        f"the body is too large: got {got}, expected at most {limits.max_body_bytes} bytes",
    )
