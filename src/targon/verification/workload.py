"""What engines are asked when they are measured: requests of the kinds that users send, drawn from a seed.

Calibrating and evaluating must not share prompts or seeds: give each its own passages and its own seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from targon.engines import GenerateTask
from targon.protocol.messages import ChatMessage, Dialect, Sampling
from targon.protocol.primitives import u64_hex
from targon.protocol.prompt import challenge_messages

QUESTIONS: Final = (
    "What does the text above say?",
    "What is this about, in one sentence?",
    "Explain this to somebody who is new to it.",
    "Give an example of what is described here.",
    "Why would anyone need this?",
    "What could go wrong here, and what would you do?",
    "Which words here matter most, and what do they mean?",
    "Write this again for a child of ten.",
)

WISHES: Final = (
    "Write a short story about a lighthouse keeper who counts boats.",
    "Explain why the sky is blue.",
    "Give me a recipe for bread with what one has at home.",
    "Write a polite letter to a neighbour about noise.",
    "What are the main differences between a list and a tuple?",
    "Tell me about a famous bridge and how it was built.",
    "Make a plan for a day in a city by the sea.",
    "Write a poem about rain on a tin roof.",
    "How does a bicycle stay upright?",
    "Describe the inside of an old clock.",
    "Help me to write a function that finds duplicates.",
    "What should I think of before I adopt a dog?",
)

GO_ON: Final = ("Tell me more.", "Are you sure? Explain it again.", "And shorter?", "Go on.")


@dataclass(frozen=True, slots=True)
class Mix:
    """How requests are drawn: every value of a tuple is as likely as another."""

    temperatures: tuple[float, ...]
    top_ps: tuple[float, ...]
    top_ks: tuple[int, ...]
    min_tokens: int
    max_tokens: int
    challenges_only: bool = False
    """Whether all are a question about one passage, as challenges are; else users' wishes, long texts and
    conversations are among them."""


BROAD: Final = Mix(
    temperatures=(0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.8, 0.8, 0.9, 1.0, 1.0, 1.0, 1.1, 1.2),
    top_ps=(0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.9, 0.8, 1.0, 1.0),
    top_ks=(0, 0, 0, 0, 0, 0, 0, 40, 20, 50),
    min_tokens=32,
    max_tokens=192,
)
"""All that a calibration should cover."""

USUAL: Final = Mix(
    temperatures=(0.4, 0.6, 0.7, 0.8, 0.8, 0.9, 1.0, 1.0, 1.1, 1.2),
    top_ps=(0.95, 0.95, 0.95, 0.9, 1.0),
    top_ks=(0,),
    min_tokens=32,
    max_tokens=192,
)
"""What most requests are like: where calibrating most closely pays most."""

CHALLENGES: Final = Mix(
    temperatures=(0.8, 1.0),
    top_ps=(0.95,),
    top_ks=(0,),
    min_tokens=32,
    max_tokens=128,
    challenges_only=True,
)
"""What cheats are tried on."""

KINDS: Final = ("passage", "passage", "passage", "wish", "long", "talk")
"""Each is as likely as another."""


def draw_tasks(passages: Sequence[str], mix: Mix, seed: str, count: int) -> list[GenerateTask]:
    """So many requests.

    Args:
        passages: what they are about.
        seed: equal seeds (and passages) give equal requests.

    Raises:
        ValueError: if there are no passages.
    """
    if not passages:
        raise ValueError("passages: got none, expected at least one")
    rng = random.Random(seed)  # noqa: S311 - not for secrets: anyone shall draw the same
    return [_task(passages, mix, rng) for _ in range(count)]


def in_dialect(task: GenerateTask, dialect: Dialect) -> GenerateTask:
    """The same request in another dialect; in ``greedy`` there is nothing to draw, and nothing to cut."""
    changes: dict[str, object] = {"dialect": dialect}
    if dialect == "greedy":
        changes |= {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
    return replace(task, sampling=task.sampling.model_copy(update=changes))


def _task(passages: Sequence[str], mix: Mix, rng: random.Random) -> GenerateTask:
    sampling = Sampling(
        seed=u64_hex(rng.getrandbits(64)),
        temperature=rng.choice(mix.temperatures),
        top_p=rng.choice(mix.top_ps),
        top_k=rng.choice(mix.top_ks),
        max_tokens=rng.randint(mix.min_tokens, mix.max_tokens),
    )
    kind = "passage" if mix.challenges_only else rng.choice(KINDS)
    return GenerateTask(_messages(kind, passages, rng), sampling, rng.getrandbits(64))


def _messages(kind: str, passages: Sequence[str], rng: random.Random) -> tuple[ChatMessage, ...]:
    match kind:
        case "wish":
            return _conversation(rng.choice(WISHES))
        case "long":
            texts = [rng.choice(passages) for _ in range(rng.randint(3, 9))]
            return _conversation("\n\n".join(texts) + "\n\nSum this up.")
        case "talk":
            return _conversation(rng.choice(WISHES), rng.choice(passages), rng.choice(GO_ON))
        case _:
            return challenge_messages(rng.choice(QUESTIONS), rng.choice(passages))


def _conversation(*turns: str) -> tuple[ChatMessage, ...]:
    """A user's first words, an answer, the user's next words …"""
    spoken = [
        ChatMessage(role="assistant" if place % 2 else "user", content=text)
        for place, text in enumerate(turns)
    ]
    return (ChatMessage(role="system", content="You are a helpful assistant."), *spoken)
