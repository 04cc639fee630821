"""A model's card: by which few answers its weights are recognised, whatever engine runs them.

A name proves nothing: the usual honest mistake is an engine that runs another revision, a quantized file or a
look-alike under the right name. A card holds what the model itself, in float32, answers greedily to a few fixed
conversations, each token with its log-probability. Any engine that reports log-probabilities of what it
generates can be asked the same (:mod:`targon.engines.remote.probing`). The card also has the digests that the
model digest is made of, so that a folder without weights can be told from another model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from targon.engines.errors import EngineUnavailable
from targon.engines.port import Engine, GenerateTask
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import ChatMessage, Message, Sampling
from targon.protocol.primitives import Digest, Hex32, TokenId, u64_hex

FILE: Final = "targon-card.json"
"""The card's name in a model's folder."""

SHIPPED: Final = Path(__file__).parent / "cards"
"""The cards that come with the software; a file's name is the model's digest."""

ANSWER_TOKENS: Final = 12
"""Few: behind the first token that differs, two answers can't be compared any more."""

CONVERSATIONS: Final[tuple[tuple[ChatMessage, ...], ...]] = (
    (ChatMessage(role="user", content="Name the planets of the solar system, in order."),),
    (
        ChatMessage(role="system", content="You are a careful translator."),
        ChatMessage(role="user", content="Translate to French: 'The sea is calm tonight.'"),
    ),
    (
        ChatMessage(role="user", content="What is 17 × 23?"),
        ChatMessage(role="assistant", content="17 × 23 = 391."),
        ChatMessage(role="user", content="Now add 9, and explain why «naïve» has two dots. 漢字 😀"),
    ),
    (ChatMessage(role="user", content="def fibonacci(n):\n    '''Return the n-th number.'''\n"),),
)
"""What is asked. They also show how an engine renders conversations."""


class CardAnswer(Message):
    """What the model answers to one of the conversations."""

    token_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    logprobs: tuple[float, ...]
    """Natural, at temperature 1."""


class ModelCard(Message):
    """What a model is recognised by."""

    version: Literal[1] = 1
    name: str
    model_digest: Hex32
    answers: Annotated[
        tuple[CardAnswer, ...], Field(min_length=len(CONVERSATIONS), max_length=len(CONVERSATIONS))
    ]


def greedy(messages: tuple[ChatMessage, ...]) -> GenerateTask:
    """How each of the conversations is asked."""
    sampling = Sampling(dialect="greedy", seed=u64_hex(0), temperature=0.0, max_tokens=ANSWER_TOKENS)
    return GenerateTask(messages, sampling, 0)


async def make_card(engine: Engine) -> ModelCard:
    """Ask a trusted engine. Raises what the engine raises.

    Args:
        engine: runs the model's own weights, in float32.
    """
    answers = []
    for messages in CONVERSATIONS:
        steps = [step async for step in engine.generate(greedy(messages))]
        answers.append(
            CardAnswer(
                token_ids=tuple(step.token_id for step in steps),
                logprobs=tuple(round(step.logprob, 6) for step in steps),
            )
        )
    return ModelCard(
        name=engine.identity.name, model_digest=engine.identity.model_digest, answers=tuple(answers)
    )


def find_card(digest: Digest, folder: Path) -> ModelCard | None:
    """The card of a model: the one in its folder, else the one that comes with the software.

    Raises:
        EngineUnavailable: if there is one that can't be read, or that is another model's.
    """
    for path in (folder / FILE, SHIPPED / f"{digest}.json"):
        if path.is_file():
            try:
                card = ModelCard.from_bytes(path.read_bytes())
            except MalformedMessage as error:
                raise EngineUnavailable(
                    f"model card {path}: {error}; remove it, or make it anew with `targon engine card`"
                ) from error
            if card.model_digest != digest:
                raise EngineUnavailable(
                    f"model card {path}: got one of model {card.model_digest}, expected {digest}; remove it, or make "
                    "it anew with `targon engine card`"
                )
            return card
    return None
