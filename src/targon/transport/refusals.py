"""Refusals: what a server says when it does not do what it was asked, and the one form it says it in.

The body of every error answer is ``{"error": {"code", "message", "got", "expected"}}``. A refusal never
repeats a signature, and nothing of the sender's that is longer than a line.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_QUOTED_CHARS = 80

Quoted = str | int | float | bool | list[str] | None
"""What ``got`` and ``expected`` may be."""


class Code(StrEnum):
    """Every reason for which a neuron refuses. The words of the wire, the metrics and the logs alike."""

    # before a byte of the body is read
    TLS_REQUIRED = "tls_required"
    HEADERS_TOO_LARGE = "headers_too_large"
    NO_SUCH_PATH = "no_such_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    LENGTH_REQUIRED = "length_required"
    BODY_TOO_LARGE = "body_too_large"
    UNSIGNED = "unsigned"
    MALFORMED_AUTH = "malformed_auth"
    WRONG_RECEIVER = "wrong_receiver"
    STALE_NONCE = "stale_nonce"
    NOT_REGISTERED = "not_registered"
    NO_VALIDATOR_PERMIT = "no_validator_permit"
    CHAIN_UNAVAILABLE = "chain_unavailable"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_CONCURRENT = "too_many_concurrent"
    OVERLOADED = "overloaded"
    # after it
    BODY_TOO_SLOW = "body_too_slow"
    BAD_SIGNATURE = "bad_signature"
    REPLAYED = "replayed"
    # about the request itself
    MALFORMED_REQUEST = "malformed_request"
    WRONG_PROVER = "wrong_prover"
    WRONG_VERIFIER = "wrong_verifier"
    WRONG_NETWORK = "wrong_network"
    UNKNOWN_MODEL = "unknown_model"
    UNSUPPORTED_SAMPLING = "unsupported_sampling"
    STALE_BLOCK = "stale_block"
    WRONG_BLOCK_HASH = "wrong_block_hash"
    ALREADY_ANSWERED = "already_answered"
    TASK_REFUSED = "task_refused"
    QUEUE_FULL = "queue_full"
    EVICTED = "evicted"
    WAITED_TOO_LONG = "waited_too_long"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    # about a verifier's log and what follows from it
    NOT_A_PROVER = "not_a_prover"
    NOT_RELEASED = "not_released"
    # about an oracle's private inputs
    NO_PLACE = "no_place"
    NO_SUCH_PLACE = "no_such_place"
    BLOCK_GONE = "block_gone"
    BLOCK_NOT_YET = "block_not_yet"
    NOT_COMMITTED = "not_committed"
    EXHAUSTED = "exhausted"
    NO_SUCH_PERIOD = "no_such_period"
    NOT_REVEALED = "not_revealed"
    REVEAL_GONE = "reveal_gone"
    INTERNAL = "internal"


STATUS: dict[Code, int] = {
    Code.TLS_REQUIRED: 400,
    Code.HEADERS_TOO_LARGE: 431,
    Code.NO_SUCH_PATH: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.LENGTH_REQUIRED: 411,
    Code.BODY_TOO_LARGE: 413,
    Code.UNSIGNED: 401,
    Code.MALFORMED_AUTH: 400,
    Code.WRONG_RECEIVER: 401,
    Code.STALE_NONCE: 401,
    Code.NOT_REGISTERED: 403,
    Code.NO_VALIDATOR_PERMIT: 403,
    Code.CHAIN_UNAVAILABLE: 503,
    Code.TOO_MANY_REQUESTS: 429,
    Code.TOO_MANY_CONCURRENT: 429,
    Code.OVERLOADED: 503,
    Code.BODY_TOO_SLOW: 408,
    Code.BAD_SIGNATURE: 401,
    Code.REPLAYED: 401,
    Code.MALFORMED_REQUEST: 400,
    Code.WRONG_PROVER: 400,
    Code.WRONG_VERIFIER: 403,
    Code.WRONG_NETWORK: 400,
    Code.UNKNOWN_MODEL: 404,
    Code.UNSUPPORTED_SAMPLING: 422,
    Code.STALE_BLOCK: 409,
    Code.WRONG_BLOCK_HASH: 409,
    Code.ALREADY_ANSWERED: 409,
    Code.TASK_REFUSED: 422,
    Code.QUEUE_FULL: 503,
    Code.EVICTED: 503,
    Code.WAITED_TOO_LONG: 503,
    Code.ENGINE_UNAVAILABLE: 503,
    Code.NOT_A_PROVER: 404,
    Code.NOT_RELEASED: 416,
    Code.NO_PLACE: 403,
    Code.NO_SUCH_PLACE: 404,
    Code.BLOCK_GONE: 410,
    Code.BLOCK_NOT_YET: 409,
    Code.NOT_COMMITTED: 503,
    Code.EXHAUSTED: 503,
    Code.NO_SUCH_PERIOD: 404,
    Code.NOT_REVEALED: 409,
    Code.REVEAL_GONE: 410,
    Code.INTERNAL: 500,
}
"""The HTTP status that goes with each code."""


class Problem(BaseModel):
    """What went wrong, in words and in values."""

    model_config = ConfigDict(frozen=True, strict=True)

    code: str = Field(min_length=1, max_length=64)
    message: str
    got: Quoted = None
    expected: Quoted = None


class ErrorBody(BaseModel):
    """The body of every error answer."""

    model_config = ConfigDict(frozen=True, strict=True)

    error: Problem


class Refusal(Exception):
    """A request that a server does not serve.

    Attributes:
        code: why, as a word; the HTTP status follows from it.
        message: why, in a sentence that says what to do.
        got, expected: the values behind it, where there are any.
        retry_after_s: after how many seconds it is worth another try; None: it isn't.
        headers: HTTP headers that belong to the answer.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        got: Quoted = None,
        expected: Quoted = None,
        retry_after_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.code = code
        self.message = message
        self.got = quoted(got) if isinstance(got, str) else got
        self.expected = expected
        self.retry_after_s = retry_after_s
        self.headers = headers
        super().__init__(f"{code}: {message}")

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def body(self) -> bytes:
        """The JSON body."""
        problem = Problem(code=self.code, message=self.message, got=self.got, expected=self.expected)
        return ErrorBody(error=problem).model_dump_json().encode()

    def header_pairs(self) -> list[tuple[str, str]]:
        """The headers of the answer that are this refusal's own."""
        pairs = list(self.headers)
        if self.retry_after_s is not None:
            pairs.append(("retry-after", str(max(1, round(self.retry_after_s + 0.5)))))
        return pairs


class ClientGone(Exception):
    """The client went away before it had its answer: there is nobody left to tell."""


def quoted(value: Any, limit: int = MAX_QUOTED_CHARS) -> str:  # noqa: ANN401 - anything can be quoted
    """A value as one short printable line, so that a sender cannot write our logs or our answers."""
    text = str(value)
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
