"""What a user asks of the network, before it is known who will answer.

An order becomes a :class:`~targon.protocol.messages.GenerateRequest` when it has an attempt, a prover and a seed; until
then it is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo

from targon.protocol.messages import (
    MAX_COMPLETION_TOKENS,
    MAX_MESSAGES,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    MAX_TOKEN_ID,
    ChatMessage,
    Message,
)
from targon.protocol.primitives import u64_hex

TEMPLATE_TOKENS: Final = 96
"""More than any chat template adds by itself."""
MESSAGE_TOKENS: Final = 12
"""More than a chat template adds to one message."""

_TWO_64: Final = 1 << 64


def _seed_in_json(value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever stands in the JSON
    if info.mode != "json" or value is None:
        return value
    if not (isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")):
        raise ValueError("expected 16 lower-case hex digits, the seed's two's complement")
    number = int(value, 16)
    return number - _TWO_64 if number >= _TWO_64 >> 1 else number


def _seed_to_json(value: int | None) -> str | None:
    return None if value is None else u64_hex(value % _TWO_64)


Seed = Annotated[
    Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None,
    BeforeValidator(_seed_in_json),
    PlainSerializer(_seed_to_json, when_used="json"),
]
"""A user's seed. In JSON it is the 16 hex digits of its two's complement: it can exceed 2⁵³ − 1."""


class Order(Message):
    """One answer that a user wants. A request for several answers (``n``) is as many orders."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    """Longest answer; None: as long as the verifier has it, and the model's context allows."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)], ...],
        Field(max_length=MAX_STOP_STRINGS),
    ] = ()
    choice: Annotated[int, Field(ge=0, lt=128)] = 0
    """Its index among the answers that were asked for together."""
    seed: Seed = None
    """The user's own. It is mixed into the request's salt, and so into its digest; what is drawn follows from the
    verifier's seed alone."""


def upper_bound(messages: Sequence[ChatMessage]) -> int:
    """More tokens than a prompt has, in any tokenizer."""
    said = sum(len(message.content.encode()) + MESSAGE_TOKENS for message in messages)
    return said + TEMPLATE_TOKENS
