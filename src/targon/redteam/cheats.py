"""Cheats, as small wrappers around a prover's engine. Each does one thing; they compose.

They exist so that the network can be watched catching them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

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
