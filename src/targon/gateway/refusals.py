"""What a user is told when a request can't be served, in the form that OpenAI's clients know.

``{"error": {"message", "type", "param", "code"}}``: the message is for people, ``code`` for programs, ``param`` names
the part of the request that is wrong.
"""

from __future__ import annotations

import math
from json import dumps
from typing import Any

from targon.gateway.errors import ServiceFailed
from targon.transport.errands import AnswerRefused, DeskError, NobodyFree, NotReady, UnknownModel, Unservable

INVALID = "invalid_request_error"
SERVER = "server_error"
MAX_RETRY_AFTER_S = 86_400
"""A day: longer, no quota asks anybody to wait."""


class ApiError(Exception):
    """Ends a request with a status and an error body."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        retry_after_s: float | None = None,
        hopeless: bool = False,
    ) -> None:
        """Describe it.

        Args:
            kind: OpenAI's ``type``.
            retry_after_s: when it may be worth to try again; None: nothing is promised.
            hopeless: clients that would try again by themselves are told not to.
        """
        self.status = status
        self.code = code
        self.kind = kind
        self.param = param
        self.retry_after_s = retry_after_s
        self.hopeless = hopeless
        super().__init__(message)

    def to_json(self) -> dict[str, Any]:
        """The error body."""
        return {
            "error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code},
        }

    def body(self) -> bytes:
        return dumps(self.to_json()).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the client's own retries go by."""
        headers = []
        if self.retry_after_s is not None:
            # rounded up: whoever comes back then is not told to wait again
            headers.append(
                (b"retry-after", b"%d" % max(1, math.ceil(min(self.retry_after_s, MAX_RETRY_AFTER_S))))
            )
        if self.hopeless:
            headers.append((b"x-should-retry", b"false"))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


def invalid(param: str | None, code: str, message: str) -> ApiError:
    """A request that has to be changed before it is sent again."""
    return ApiError(400, code, message, param=param)


def stopping() -> ApiError:
    """The gateway is about to end."""
    return ApiError(
        503, "not_ready", "the gateway is stopping; send the request again", kind=SERVER, retry_after_s=1
    )


def of_service(error: DeskError | ServiceFailed | TimeoutError) -> ApiError:
    """The same, as a user is told."""
    match error:
        case NobodyFree():
            return ApiError(
                503, "overloaded", str(error), kind=SERVER, retry_after_s=max(error.retry_after_s, 1.0)
            )
        case NotReady():
            return ApiError(
                503, "not_ready", str(error), kind=SERVER, retry_after_s=max(error.retry_after_s, 1.0)
            )
        case UnknownModel():
            return ApiError(404, "model_not_found", f"model: {error}", param="model")
        case Unservable():
            return invalid(error.parameter, error.code, str(error))
        case ServiceFailed(begun=True):
            return ApiError(
                502,
                "answer_broken_off",
                f"the answer broke off and is not to be used: {error}; send the request again",
                kind=SERVER,
            )
        case AnswerRefused() | ServiceFailed():
            return ApiError(502, "answer_failed", f"no good answer came: {error}", kind=SERVER)
        case TimeoutError():
            return ApiError(504, "timed_out", "no answer came in time; send the request again", kind=SERVER)
        case _:
            return ApiError(503, "not_ready", str(error), kind=SERVER, retry_after_s=1)
