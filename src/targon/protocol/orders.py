"""What a user asks of the network, before it is known who will answer.

An order becomes a :class:`~targon.protocol.messages.GenerateRequest` when it has an attempt, a prover and a seed; until
then it is nobody's.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from targon.protocol.messages import (
    MAX_COMPLETION_TOKENS,
    MAX_MESSAGES,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    MAX_TOKEN_ID,
    ChatMessage,
    Message,
)


class Order(Message):
    """One answer that a user wants. A request for several answers (``n``) is as many orders."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    """Longest answer; None: as long as the model's context allows."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)], ...],
        Field(max_length=MAX_STOP_STRINGS),
    ] = ()
    choice: Annotated[int, Field(ge=0, lt=128)] = 0
    """Its index among the answers that were asked for together."""
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    """The user's own. It is mixed into the request's salt, and so into its digest; what is drawn follows from the
    verifier's seed alone."""
