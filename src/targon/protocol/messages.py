"""The messages of the wire: a request, its completion, and the receipt that binds the two.

A challenge and an inference are the verifier's words for why it asks. On the wire they are the same
message, so that a prover cannot behave for the one and cheat on the other.

Every message carries a 32-byte random salt, so that a published digest cannot be guessed back to what
it digests. Token ids are the answer; text is derived from them and is never evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from targon.protocol.canonical import Places, canonical_bytes, digest_of, object_bytes, places
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import (
    SPEC_VERSION,
    AttemptNumber,
    Block,
    Digest,
    Hex8,
    Hex32,
    Hex64,
    HotkeyField,
    TokenId,
)

MAX_MESSAGES = 256
MAX_MESSAGE_CHARS = 262_144
MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 64
MAX_COMPLETION_TOKENS = 131_072
MAX_TOKEN_ID = (1 << 31) - 1
MAX_SAFE_INTEGER = (1 << 53) - 1

Dialect = Literal["targon/1", "greedy", "vllm", "native"]
"""Which sampler turns logits into tokens. Named, never guessed."""

FinishReason = Literal["stop", "stop_string", "length"]
"""``stop``: the model's end-of-sequence token, which is the last token id. ``stop_string``: the text
came to hold one of the request's stop strings. ``length``: ``max_tokens`` were generated."""

M = TypeVar("M", bound="Message")
K = TypeVar("K")


class Message(BaseModel):
    """What every message has in common: frozen, strict, and with nothing but its own fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    PLACES: ClassVar[Places | None] = ()
    """Of the fields in the canonical form; None where a field stands otherwise in JSON than in memory."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:  # noqa: ANN401 - pydantic's
        told = (one for field in cls.model_fields.values() for one in field.metadata)
        plain = not any(isinstance(one, PlainSerializer) for one in told)
        cls.PLACES = places(cls.model_fields) if plain else None

    def to_json(self) -> dict[str, Any]:
        """The message as a JSON value."""
        return self.model_dump(mode="json")

    def to_bytes(self) -> bytes:
        """The message in its canonical form (RFC 8785)."""
        fast = None if self.PLACES is None else object_bytes(vars(self), self.PLACES)
        return fast or canonical_bytes(self.to_json())

    def digest(self) -> Digest:
        """SHA-256 over :meth:`to_bytes`."""
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes | str) -> Self:
        """Parse a message from JSON.

        Raises:
            MalformedMessage: naming each field that is wrong, what was got and what was expected.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise MalformedMessage(_explain(cls.__name__, error)) from error

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Parse a message from a JSON value; raises as :meth:`from_bytes` does."""
        return cls.from_bytes(canonical_bytes(dict(value)))


class ChatMessage(Message):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)]


class Sampling(Message):
    """How tokens are drawn. ``top_k`` 0 and ``top_p`` 1.0 mean off.

    What a dialect allows is checked by :func:`targon.protocol.sampler.check_sampling`, so that the
    refusal can name the parameter.
    """

    dialect: Dialect = "targon/1"
    seed: Hex8
    """64 bits, drawn from the verifier's committed secret once the attempt has its number."""
    temperature: Annotated[float, Field(ge=0.0, le=10.0)]
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)]
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)], ...],
        Field(max_length=MAX_STOP_STRINGS),
    ] = ()
    choice: Annotated[int, Field(ge=0, lt=128)] = 0
    """Index of this answer where a user asked for several of one prompt."""


class GenerateRequest(Message):
    """``POST /v1/generate``: what a verifier asks of one prover."""

    __slots__ = (
        "_bytes",
        "_digest",
    )  # kept once they were asked for; no copy has them, and no comparison sees them

    spec_version: Literal[1] = SPEC_VERSION
    salt: Hex32
    genesis: Hex32
    """Hash of the chain's first block: which network this is."""
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    verifier: HotkeyField
    prover: HotkeyField
    attempt: Hex8
    """The attempt's number in the verifier's log."""
    block: Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
    block_hash: Hex32
    log_head: Hex32
    """Head of the verifier's log as anchored for this interval; two heads for one interval prove a fork."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    sampling: Sampling
    stream: bool = False

    @property
    def attempt_number(self) -> AttemptNumber:
        return AttemptNumber(int(self.attempt, 16))

    def to_bytes(self) -> bytes:
        """As of every message; the bytes are made once."""
        return _kept(self, "_bytes", super().to_bytes)

    def digest(self) -> Digest:
        """As of every message; it is taken once."""
        return _kept(self, "_digest", super().digest)


class Completion(Message):
    """A prover's answer."""

    __slots__ = ("_digest",)

    salt: Hex32
    request_digest: Hex32
    token_ids: Annotated[
        tuple[Annotated[TokenId, Field(ge=0, le=MAX_TOKEN_ID)], ...],
        Field(max_length=MAX_COMPLETION_TOKENS),
    ]
    """The answer, the end-of-sequence token included where there is one."""
    finish_reason: FinishReason
    text: Annotated[str, Field(max_length=MAX_COMPLETION_TOKENS * 64)]
    """A courtesy: derived from the token ids by the verifier, and never evidence."""
    logprobs: Annotated[tuple[float, ...], Field(max_length=MAX_COMPLETION_TOKENS)] | None = None
    """Natural-log probability of each token before temperature, where the engine has them."""

    def evidence_json(self) -> dict[str, Any]:
        """The fields that the completion digest covers: everything but the derived text."""
        value = self.to_json()
        del value["text"]
        return value

    def digest(self) -> Digest:
        """SHA-256 over the canonical form of :meth:`evidence_json`; it is taken once."""
        return _kept(self, "_digest", self._take_digest)

    def _take_digest(self) -> Digest:
        return digest_of(object_bytes(vars(self), _EVIDENCE) or canonical_bytes(self.evidence_json()))


_EVIDENCE = places(name for name in Completion.model_fields if name != "text")


class ReceiptBody(Message):
    """What a prover signs."""

    spec_version: Literal[1] = SPEC_VERSION
    salt: Hex32
    genesis: Hex32
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    verifier: HotkeyField
    prover: HotkeyField
    attempt: Hex8
    block: Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
    request_digest: Hex32
    completion_digest: Hex32
    model: Annotated[str, Field(min_length=1, max_length=256)]
    model_digest: Hex32
    """Digest of the weights, tokenizer, chat template and sampling defaults that the prover claims to run."""
    issued_at: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    """Seconds since 1970-01-01 UTC, by the prover's clock."""


class Receipt(Message):
    """A prover's signed statement of what it answered to which request."""

    body: ReceiptBody
    signature: Hex64
    """sr25519 by the prover's hotkey over :func:`targon.protocol.receipts.signed_bytes`."""


class GenerateResponse(Message):
    """The whole (not streamed) answer to ``POST /v1/generate``."""

    completion: Completion
    receipt: Receipt


class TokenEvent(Message):
    """One server-sent event of a streamed answer; the last one carries the response instead."""

    token_ids: tuple[Annotated[TokenId, Field(ge=0, le=MAX_TOKEN_ID)], ...]
    text: str
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each token before temperature, where the engine has them."""


class ProverStatus(Message):
    """``GET /v1/status``: what a prover says of itself."""

    spec_version: Literal[1] = SPEC_VERSION
    version: str
    hotkey: HotkeyField
    models: tuple[str, ...]
    dialects: tuple[Dialect, ...]
    capacity: Annotated[int, Field(ge=0)]
    """How many requests it will work on at once."""
    queued: Annotated[int, Field(ge=0)]
    running: Annotated[int, Field(ge=0)]


def _kept(message: Message, slot: str, make: Callable[[], K]) -> K:
    """What a message's slot holds; made if it holds nothing yet.

    A slot of the class, unlike an attribute of the instance, is no part of what pydantic copies or compares.
    """
    try:
        value: K = object.__getattribute__(message, slot)  # pydantic's own looks longer for what isn't there
    except AttributeError:
        value = make()
        object.__setattr__(message, slot, value)
    return value


def _explain(name: str, error: ValidationError) -> str:
    """A validation error in words: each field, what was got, what was expected; long values cut."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False)[:5]:
        where = ".".join(str(step) for step in problem["loc"]) or "(the whole message)"
        got = repr(problem["input"])
        parts.append(f"{where}: {problem['msg']}; got {got if len(got) <= 80 else got[:77] + '...'}")
    more = error.error_count() - len(parts)
    return f"{name}: " + "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
