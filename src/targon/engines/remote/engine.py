"""The engine port over an engine that somebody else runs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Final

import anyio
from anyio import to_thread

from targon.engines.errors import EngineBusy, EngineError, EngineUnavailable, TaskRefused
from targon.engines.port import (
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
)
from targon.engines.remote.answers import batches
from targon.engines.remote.backend import Backend, Prompt
from targon.engines.remote.capabilities import Capabilities
from targon.engines.remote.familiarity import Familiarity
from targon.engines.remote.folder import ModelFolder
from targon.engines.remote.scoring import Scorer
from targon.engines.replay_by_score import replay_by_score
from targon.engines.task_checks import (
    check_claim,
    check_length,
    check_sampler,
    check_token_ids,
    check_top_k,
)
from targon.protocol.messages import ChatMessage, Dialect
from targon.protocol.primitives import TokenId
from targon.protocol.text import answer_text

LIST_LENGTH = 20
"""How many of the most likely tokens a replay asks for: what vLLM gives unless it is told to give more. A
calibration of replays from lists holds for lists of this length."""

CHECK_SECONDS = 5.0

SHORT_CHARS = 8_000
"""Longer conversations are tokenized in a thread, which costs a fifth of a millisecond: this many take about two."""

REPLAYED: Final[tuple[Dialect, ...]] = ("targon/1", "greedy")
"""The samplers that can be replayed from scores, whether the engine itself runs them or not."""


class RemoteEngine:
    """The engine port over HTTP; made by :func:`targon.engines.remote.open_remote_engine`."""

    def __init__(
        self, backend: Backend, folder: ModelFolder, identity: ModelIdentity, capabilities: Capabilities
    ) -> None:
        self._backend = backend
        self._folder = folder
        self._identity = identity
        self._served = capabilities.served
        self._scorer = Scorer(backend, capabilities.served.model, folder.vocab_size)
        self._familiarity = Familiarity(backend, folder, capabilities, time.monotonic)
        self.capabilities = capabilities

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        async with aclosing(self.batches(task)) as generated:
            async for batch in generated:
                for step in batch:
                    yield step

    async def batches(self, task: GenerateTask) -> AsyncGenerator[Sequence[Step], None]:
        """The steps of :meth:`generate`: those that the engine sent together, together."""
        check_sampler(task, self._identity.dialects)
        prompt = await self._prompt(task.messages)
        check_length(len(prompt.token_ids), task.sampling.max_tokens, "max_tokens", self._identity)
        try:
            await self._familiarity.ensure()
            generated = batches(
                self._backend, self._served.model, self._folder, prompt, task.sampling, task.run_key
            )
            async with aclosing(generated):
                async for batch in generated:
                    yield batch
        except EngineUnavailable as error:
            self._note(error)
            raise
        self._familiarity.answered()

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        checked = [(await self._claim(task), task) for task in tasks]
        if checked:
            with self._noting_failures():
                await self._familiarity.ensure()
        results: dict[int, Scores | EngineError] = {}
        turns = anyio.Semaphore(self._identity.max_batch)  # tasks of one call leave others their turn

        async def score(place: int, prompt: tuple[TokenId, ...], task: ScoreTask) -> None:
            try:
                async with turns:
                    with self._noting_failures():
                        results[place] = await self._scorer.score(prompt, task.token_ids, task.top_k)
            except EngineError as error:
                results[place] = error

        async with anyio.create_task_group() as group:
            for place, (prompt, task) in enumerate(checked):
                group.start_soon(score, place, prompt, task)
        scores = []
        for place in range(len(checked)):
            result = results[place]
            if isinstance(result, EngineError):
                raise result
            scores.append(result)
        self._familiarity.answered()
        return scores

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        for task in tasks:
            check_sampler(task, REPLAYED)
        return await replay_by_score(self, tasks, top_k=LIST_LENGTH)

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        return (await self._prompt(messages)).token_ids

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        check_token_ids(token_ids, self._identity)
        return answer_text(token_ids, self._folder.chat.decode, eos_ids=self._folder.eos_ids, stop=stop)

    async def check(self) -> None:
        try:
            with anyio.fail_after(CHECK_SECONDS):
                served = await self._backend.served()
        except TimeoutError:
            raise EngineUnavailable(
                f"engine {self._served.engine}: it doesn't say what it serves within {CHECK_SECONDS:g} s"
            ) from None
        if self._served.model not in served.models or served.context_length != self._served.context_length:
            raise EngineUnavailable(
                f"engine {self._served.engine}: got {', '.join(served.models)} with a context of "
                f"{served.context_length} tokens, expected {self._served.model} with "
                f"{self._served.context_length} as when it was probed: another engine answers there now; start it "
                "again as it was, or start this process again"
            )
        if (served.engine, served.folder) != (self._served.engine, self._served.folder):
            self._familiarity.failed()
        with self._noting_failures():
            await self._familiarity.ensure()
        self._served = replace(self._served, engine=served.engine, folder=served.folder)

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            yield
        except EngineUnavailable as error:
            self._note(error)
            raise

    def _note(self, error: EngineUnavailable) -> None:
        if not isinstance(error, EngineBusy):
            self._familiarity.failed()

    async def aclose(self) -> None:
        """Nothing is held that the connection doesn't hold."""

    async def _prompt(self, messages: Sequence[ChatMessage]) -> Prompt:
        """A conversation rendered and tokenized; a long one in a thread, where it holds nobody up."""
        if sum(len(message.content) for message in messages) <= SHORT_CHARS:
            return self._folder.prompt(messages)
        return await to_thread.run_sync(self._folder.prompt, messages)

    async def _claim(self, task: ScoreTask) -> tuple[TokenId, ...]:
        """The prompt of a task that can be scored."""
        check_top_k(task, self._identity)
        most, vocabulary = self.capabilities.prompt_logprobs, self._identity.vocab_size
        if (task.top_k or vocabulary) > most:
            raise TaskRefused(
                f"top_k: got {task.top_k or f'0 (all {vocabulary})'}, expected at most {most}, which is what this "
                "engine reports of given tokens"
            )
        check_claim(task, self._identity)
        prompt = await self.prompt_token_ids(task.messages)
        # the engine generates a token of its own behind those that it scores
        check_length(len(prompt), len(task.token_ids) + 1, "claimed tokens (and one more)", self._identity)
        return prompt
