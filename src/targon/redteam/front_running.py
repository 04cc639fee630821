"""A prover that runs ahead: it has seen what was asked before, has kept the true model's answers, and runs a cheap
model for the rest.

It knows every public passage, every passage that an oracle revealed, and every question that is asked of one: more
than a prover can where verifiers draw what they ask (:mod:`targon.redteam.front_running_drawn`). Of each conversation
that it foresaw it kept the true model's answers, with the distributions that they were drawn from. So what it can
still say at no cost depends on the temperature. At T = 0 it is the whole answer. Above, today's noise is drawn over the
kept distributions, and gives the true tokens for as long as they stay on a path that was kept, and one more.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from targon.engines import Engine, GenerateTask, Step
from targon.oracle.ports import Document
from targon.oracle.refining import Taken
from targon.oracle.supply import RefinedSupply
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import Digest, TokenId
from targon.protocol.prompt import challenge_messages
from targon.redteam.cheats import Wrapper
from targon.redteam.mixtures import continued, steps_of
from targon.verification.transcripts import Transcript
from targon.verification.workload import CHALLENGES, QUESTIONS, Mix, draw_tasks, in_dialect

World = Literal["public", "oracle"]
"""Where today's passages come from: a source that everybody has, or an oracle whose texts nobody saw."""
WORLDS: Final[tuple[World, ...]] = ("public", "oracle")

Way = Literal["greedy", "targon/1"]
"""How today's answers are drawn: at T = 0, or as the mix says."""
WAYS: Final[tuple[Way, ...]] = ("greedy", "targon/1")

KEPT: Final = 8
"""Answers that it kept of each conversation above T = 0; at T = 0 there is one."""
KEPT_TOKENS: Final = 32
"""Of each of those: the paths of answers part long before."""

Conversation = tuple[ChatMessage, ...]

_SEED: Final = "front-running"


@dataclass(frozen=True, slots=True)
class Texts:
    """Who knows which passages."""

    known: tuple[str, ...]
    """To the prover, beforehand: every public one, and those that the oracle revealed."""
    asked: Mapping[World, tuple[str, ...]]
    """About which challenges of today are, each once."""
    mix: Mix
    """How their parameters are drawn."""

    def tasks(self, world: World, dialect: Way, count: int) -> list[GenerateTask]:
        """Today's challenges: the first so many; there are no more than passages."""
        texts = self.asked[world][:count]
        drawn = [
            draw_tasks((text,), self.mix, f"{_SEED}, {world}, {dialect}, {number}", 1)[0]
            for number, text in enumerate(texts)
        ]
        return [in_dialect(task, dialect) for task in drawn]


def texts_of(passages: Sequence[str], folder: Path, mix: Mix = CHALLENGES) -> Texts:
    """Half of the passages are public; the others are what an oracle alone has.

    The oracle gives them by its own supply, each once: half of them yesterday, and revealed since; the others today.

    Args:
        folder: an empty one, where the oracle remembers what it gave.

    Raises:
        SourceUseless: if the passages are none that an oracle would give.
    """
    public, unpublished = list(passages[::2]), passages[1::2]
    random.Random(_SEED).shuffle(public)  # noqa: S311 - not for secrets: anyone shall draw the same
    supply = RefinedSupply(
        _Unpublished(tuple(unpublished)),
        Taken(folder / "taken.sqlite"),
        random.Random(_SEED),  # noqa: S311 - the same
    )
    try:
        given = [passage.text for passage in supply.take(len(unpublished))]
    finally:
        supply.close()
    yesterday, today = given[: len(given) // 2], given[len(given) // 2 :]
    return Texts(
        known=(*public, *yesterday),
        asked={"public": tuple(public), "oracle": tuple(today)},
        mix=mix,
    )


class _Unpublished:
    """A source of texts, each of which comes once."""

    name = "unpublished"

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts

    @property
    def counts(self) -> Mapping[str, int]:
        """Nothing is skipped."""
        return {}

    def manifest(self) -> Digest:
        """No oracle commits to it."""
        return Digest("0" * 64)

    def documents(self, random: random.Random) -> Iterator[Document]:
        """All, in random order."""
        for place in random.sample(range(len(self._texts)), len(self._texts)):
            yield Document(self._texts[place], f"unpublished {place}", random.random())

    def close(self) -> None:
        """It has nothing open."""


class Foreseen:
    """Every conversation that the prover foresaw: each known passage with each question."""

    def __init__(self, known: Sequence[str]) -> None:
        self._exactly = {challenge_messages(question, text) for text in known for question in QUESTIONS}
        self._words = [(text, _words(text)) for text in known]

    def __len__(self) -> int:
        return len(self._exactly)

    def __contains__(self, conversation: Conversation) -> bool:
        return conversation in self._exactly

    def nearest(self, conversation: Conversation) -> Conversation:
        """The foreseen conversation that is most like another: the same question about the passage that has most
        words in common with it."""
        passage, _, question = conversation[-1].content.rpartition("\n\n")
        words = _words(passage)

        def likeness(one: tuple[str, frozenset[str]]) -> float:
            return len(words & one[1]) / len(words | one[1])

        return challenge_messages(question, max(self._words, key=likeness)[0])


def _words(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())


def kept_tasks(tasks: Sequence[GenerateTask], longest: int, kept: int = KEPT) -> list[GenerateTask]:
    """What it asked the true model yesterday about the conversations of these tasks, under noise of its own: ``kept``
    of each, or one at T = 0; those of one task stand together.

    Args:
        longest: tokens of the answer at T = 0: the most that any challenge asks for.
    """
    made = []
    for number, task in enumerate(tasks):
        rng = random.Random(f"{_SEED}, kept, {number}")  # noqa: S311 - not for secrets
        greedy = task.sampling.temperature == 0.0
        limit = longest if greedy else KEPT_TOKENS
        sampling = task.sampling.model_copy(update={"max_tokens": limit})
        made += [
            replace(task, sampling=sampling, run_key=rng.getrandbits(64))
            for _ in range(1 if greedy else kept)
        ]
    return made


def nearest_tasks(tasks: Sequence[GenerateTask], longest: int, foreseen: Foreseen) -> list[GenerateTask]:
    """What it asked the true model yesterday about the conversation that is nearest to that of each task."""
    return [
        replace(
            task,
            messages=foreseen.nearest(task.messages),
            sampling=task.sampling.model_copy(update={"max_tokens": longest}),
        )
        for task in kept_tasks(tasks, longest, 1)
    ]


class FrontRunner(Wrapper):
    """Says what it kept, and for the rest runs a cheap model.

    Args:
        cheap: the engine that it runs.
        kept: by conversation, the true model's answers that it kept.
        today: the true model's answer to each of today's requests. Nothing of it is used but what the kept
            distributions give with today's noise.
    """

    def __init__(
        self,
        cheap: Engine,
        kept: Mapping[Conversation, Sequence[Transcript]],
        today: Mapping[GenerateTask, Transcript],
    ) -> None:
        super().__init__(cheap)
        self._kept = kept
        self._today = today

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        kept = self._kept.get(task.messages)
        if not kept:
            async for step in self._engine.generate(task):
                yield step
            return
        if task.sampling.temperature == 0.0:
            for step in said_again(kept[0], task):
                yield step
            return
        true = self._today[task]
        ids = list(true.token_ids[: free_tokens(true, kept)])
        finish = true.finish_reason
        if len(ids) < len(true.token_ids):  # to go on as it did is a guess that saves replays, and no more
            ids, finish = await continued(self._engine, task, ids, true.token_ids[len(ids) :])
        for step in steps_of(ids, finish):
            yield step


class SaidAgain(Wrapper):
    """Says a kept answer again, whatever is asked.

    Args:
        engine: asked for everything but answers.
        kept: for each of today's requests, the answer that is said.
    """

    def __init__(self, engine: Engine, kept: Mapping[GenerateTask, Transcript]) -> None:
        super().__init__(engine)
        self._kept = kept

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        for step in said_again(self._kept[task], task):
            yield step


def said_again(kept: Transcript, task: GenerateTask) -> list[Step]:
    """A kept answer, no longer than asked. It was kept as long as any challenge may ask."""
    ids: Sequence[TokenId] = kept.token_ids
    limit = task.sampling.max_tokens
    return steps_of(ids[:limit], kept.finish_reason if len(ids) <= limit else "length")


def free_tokens(true: Transcript, kept: Sequence[Transcript]) -> int:
    """How many of the true answer's tokens the kept distributions give: to where it leaves every kept path, and the
    token with which it does."""
    return min(len(true.token_ids), 1 + max(_common(true.token_ids, one.token_ids) for one in kept))


def _common(one: Sequence[TokenId], other: Sequence[TokenId]) -> int:
    places = range(min(len(one), len(other)))
    return next((place for place in places if one[place] != other[place]), len(places))
