"""What users are answered, as pydantic models: the OpenAPI document is made from them.

Answers themselves are written by :mod:`targon.gateway.api.writing`, which a test holds to these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """Base of everything that users are sent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ReceiptNote(Reply):
    """What this network adds to an answer."""

    receipt_id: str
    """Ask ``/v1/receipts/{id}`` for what the prover signed."""
    request: dict[str, Any] | None = None
    """With the header ``Targon-Receipt: full``: the request as the prover got it, which the receipt is for."""
    response: dict[str, Any] | None = None
    """With the header ``Targon-Receipt: full``: the prover's whole answer with its receipt."""


class Usage(Reply):
    """Tokens that count against limits."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenLogprob(Reply):
    """One token of an answer."""

    token: str
    """Its text; ``token_id:N`` where the prover sent several tokens in one piece."""
    token_id: int
    logprob: float
    """Natural log of its probability before temperature."""
    bytes: list[int] | None
    top_logprobs: Annotated[list[Any], Field(max_length=0)]


class ChatLogprobs(Reply):
    """The tokens of a chat answer."""

    content: list[TokenLogprob] | None
    refusal: None = None


class ChatMessageReply(Reply):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(Reply):
    """One whole answer."""

    index: int
    message: ChatMessageReply
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    targon: ReceiptNote


class ChatCompletion(Reply):
    """A whole reply to ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Reply):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Reply):
    """A piece of one answer. The last one has a finish reason, and then the answer stands in the verifier's log."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    targon: ReceiptNote | None = None


class ChatCompletionChunk(Reply):
    """One event of a streamed reply to ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class LegacyLogprobs(Reply):
    """The tokens of an answer, in the older form."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None
    text_offset: list[int]


class TextChoice(Reply):
    """An answer, or in a stream a piece of one."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    targon: ReceiptNote | None = None


class TextCompletion(Reply):
    """A reply to ``/v1/completions``, or one event of it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class ModelNote(Reply):
    """What this network adds to a model."""

    model_digest: str
    """Of the weights, tokenizer, chat template and sampling defaults that provers must run."""
    context_length: int
    """Most tokens of prompt and answer together."""


class Model(Reply):
    """A model that users may ask for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["targon"] = "targon"
    targon: ModelNote


class ModelList(Reply):
    """Reply to ``/v1/models``."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(Reply):
    """Reply to ``/healthz``."""

    status: str


class ErrorNote(Reply):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Reply to whatever can't be served, and the last event of a stream that broke off."""

    error: ErrorNote
