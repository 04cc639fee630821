"""Cheats, as small wrappers around a prover's engine. Each does one thing; they compose.

They exist so that the network can be watched catching them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from targon.engines import (
    Engine,
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
)
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.sampler import MIN_TEMPERATURE


class Wrapper:
    """An engine that does as another does. Cheats override what they cheat about."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def identity(self) -> ModelIdentity:
        return self._engine.identity

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        return self._engine.generate(task)

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        return await self._engine.score(tasks)

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return await self._engine.replay(tasks)

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        return await self._engine.prompt_token_ids(messages)

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        return await self._engine.text(token_ids, stop)

    async def check(self) -> None:
        await self._engine.check()

    async def aclose(self) -> None:
        await self._engine.aclose()


class Disguise(Wrapper):
    """Runs one model and claims to run another: lower precision, fewer layers, a relay elsewhere."""

    def __init__(self, engine: Engine, claimed: ModelIdentity) -> None:
        super().__init__(engine)
        self._claimed = claimed

    @property
    def identity(self) -> ModelIdentity:
        return self._claimed


class WrongSeed(Wrapper):
    """Draws its own noise instead of the request's."""

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        return self._engine.generate(replace(task, run_key=task.run_key ^ 0x5EED))


class OwnSeed(Wrapper):
    """Ignores the request's noise: the same noise for every request."""

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        return self._engine.generate(replace(task, run_key=_OWN_SEED))


_OWN_SEED: Final = 42


class Resampled(Wrapper):
    """Draws with other parameters than were asked for.

    Args:
        hotter: added to the temperature; below 0: colder. The result stays within what the sampler can do.
        top_p, top_k: used instead of those asked for; None: as asked.
    """

    def __init__(
        self, engine: Engine, *, hotter: float = 0.0, top_p: float | None = None, top_k: int | None = None
    ) -> None:
        super().__init__(engine)
        self._hotter = hotter
        self._top_p = top_p
        self._top_k = top_k

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        sampling = task.sampling
        changed = sampling.model_copy(
            update={
                "temperature": round(max(MIN_TEMPERATURE, sampling.temperature + self._hotter), 6),
                "top_p": sampling.top_p if self._top_p is None else self._top_p,
                "top_k": sampling.top_k if self._top_k is None else self._top_k,
            }
        )
        return self._engine.generate(replace(task, sampling=changed))


class Rewritten(Wrapper):
    """Shows the model another conversation than the one that it was sent: a shorter one is cheaper to read."""

    def __init__(
        self, engine: Engine, rewrite: Callable[[tuple[ChatMessage, ...]], tuple[ChatMessage, ...]]
    ) -> None:
        super().__init__(engine)
        self._rewrite = rewrite

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        return self._engine.generate(replace(task, messages=self._rewrite(task.messages)))


def without_system(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """The conversation without system messages (all of it, where there is nothing else)."""
    return tuple(message for message in messages if message.role != "system") or messages


def without_passage(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """Of every turn the last paragraph alone: the question, without what it is about."""
    return tuple(
        message.model_copy(update={"content": message.content.rpartition("\n\n")[2]}) for message in messages
    )


def shortened(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """The last turn without the first quarter of its words."""
    *before, last = messages
    words = last.content.split(" ")
    rest = " ".join(words[len(words) // 4 :])
    return (*before, last.model_copy(update={"content": rest}))


class Truncated(Wrapper):
    """Stops after half of the tokens that were asked for, and claims that the model had ended there."""

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        last = max(1, task.sampling.max_tokens // 2) - 1
        async with aclosing(self._engine.generate(task)) as steps:
            place = 0
            async for step in steps:
                if place == last and step.finish_reason is None:
                    yield Step(self.identity.eos_ids[0], "", step.logprob, "stop")
                    return
                yield step
                place += 1


class RunsOn(Wrapper):
    """Goes on where the model ended, to be paid for more tokens: says its own answer again and again."""

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        limit = task.sampling.max_tokens
        said: list[Step] = []
        async with aclosing(self._engine.generate(task)) as steps:
            async for step in steps:
                if step.finish_reason != "stop" or not said:
                    said.append(step)
                    yield step
        if said[-1].finish_reason is not None:
            return
        for place in range(len(said), limit):
            again = said[place % len(said)]
            yield replace(again, finish_reason="length" if place == limit - 1 else None)


class Canned(Wrapper):
    """Runs the model once, and gives the same answer to everybody ever after."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._answer: tuple[Step, ...] = ()

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        if not self._answer:
            async with aclosing(self._engine.generate(task)) as steps:
                self._answer = tuple([step async for step in steps])
        for place, step in enumerate(self._answer[: task.sampling.max_tokens], start=1):
            if place == task.sampling.max_tokens and step.finish_reason is None:
                yield replace(step, finish_reason="length")
            else:
                yield step
