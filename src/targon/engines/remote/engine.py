"""The engine port over an engine that somebody else runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import anyio

from targon.engines.errors import EngineError, EngineUnavailable, TaskRefused
from targon.engines.port import (
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
)
from targon.engines.remote.answers import steps
from targon.engines.remote.backend import Backend, Prompt
from targon.engines.remote.folder import ModelFolder
from targon.engines.remote.probing import Capabilities
from targon.engines.remote.scoring import Scorer
from targon.engines.replay_by_score import replay_by_score
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.sampler import check_draw, check_sampling
from targon.protocol.text import answer_text

LIST_LENGTH = 20
"""How many of the most likely tokens a replay asks for: what vLLM gives unless it is told to give more. A
calibration of replays from lists holds for lists of this length."""

CHECK_SECONDS = 5.0


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
        self.capabilities = capabilities

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        self._check_sampling(task)
        prompt = self._prompt(task.messages)
        self._check_length(len(prompt.token_ids), task.sampling.max_tokens, "max_tokens")
        generated = steps(
            self._backend, self._served.model, self._folder, prompt, task.sampling, task.run_key
        )
        async with aclosing(generated):
            async for step in generated:
                yield step

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        checked = [(self._claim(task), task) for task in tasks]
        results: dict[int, Scores | EngineError] = {}
        turns = anyio.Semaphore(
            self._identity.max_batch
        )  # tasks that come together don't crowd one another out

        async def score(place: int, prompt: tuple[TokenId, ...], task: ScoreTask) -> None:
            try:
                async with turns:
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
        return scores

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        for task in tasks:
            self._check_sampling(task, replaying=True)
        return await replay_by_score(self, tasks, top_k=LIST_LENGTH)

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        return self._folder.chat.encode(messages)

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        self._check_token_ids(token_ids)
        return answer_text(token_ids, self._folder.chat.decode, eos_ids=self._folder.eos_ids, stop=stop)

    async def check(self) -> None:
        try:
            with anyio.fail_after(CHECK_SECONDS):
                served = await self._backend.served()
        except TimeoutError:
            raise EngineUnavailable(
                f"engine {self._served.engine}: it doesn't say what it serves within {CHECK_SECONDS:g} s"
            ) from None
        for what in ("engine", "model", "folder", "context_length"):
            got, expected = getattr(served, what), getattr(self._served, what)
            if got != expected:
                raise EngineUnavailable(
                    f"engine {self._served.engine}: got {what} {got!r}, expected {expected!r} as when it was probed: "
                    "another engine answers there now; start this process again"
                )

    async def aclose(self) -> None:
        """Nothing is held that the connection doesn't hold."""

    def _prompt(self, messages: tuple[ChatMessage, ...]) -> Prompt:
        text = self._folder.chat.render(messages)
        return Prompt(messages, text, self._folder.chat.encode_text(text))

    def _claim(self, task: ScoreTask) -> tuple[TokenId, ...]:
        """The prompt of a task that can be scored."""
        most = self.capabilities.prompt_logprobs
        vocabulary = self._folder.vocab_size
        if not 0 <= task.top_k <= vocabulary:
            raise TaskRefused(f"top_k: got {task.top_k}, expected 0 (all) to {vocabulary}")
        if (task.top_k or vocabulary) > most:
            raise TaskRefused(
                f"top_k: got {task.top_k or f'0 (all {vocabulary})'}, expected at most {most}, which is what this "
                "engine reports of given tokens"
            )
        if not task.token_ids:
            raise TaskRefused("token_ids: got none, expected at least one token to score")
        self._check_token_ids(task.token_ids)
        prompt = self._folder.chat.encode(task.messages)
        # the engine generates a token of its own behind those that it scores
        self._check_length(len(prompt), len(task.token_ids) + 1, "claimed tokens (and one more)")
        return prompt

    def _check_sampling(self, task: GenerateTask | ReplayTask, *, replaying: bool = False) -> None:
        sampling, dialects = task.sampling, self._identity.dialects
        try:
            check_sampling(sampling)
            if sampling.dialect not in dialects and not (
                replaying and sampling.dialect in ("targon/1", "greedy")
            ):
                raise UnsupportedSampling("dialect", sampling.dialect, " or ".join(map(repr, dialects)))
            check_draw(task.run_key, sampling.max_tokens, sampling.choice)
        except (UnsupportedSampling, ValueError) as error:
            raise TaskRefused(str(error)) from error

    def _check_length(self, prompt: int, more: int, what: str) -> None:
        limit = self._identity.context_length
        if prompt + more > limit:
            raise TaskRefused(
                f"context length: got {prompt} prompt tokens and {more} {what}, together {prompt + more}, "
                f"expected at most {limit}"
            )

    def _check_token_ids(self, token_ids: Sequence[TokenId]) -> None:
        vocabulary = self._folder.vocab_size
        unknown = next((id_ for id_ in token_ids if not 0 <= id_ < vocabulary), None)
        if unknown is not None:
            raise TaskRefused(f"token id: got {unknown}, expected one from 0 to {vocabulary - 1}")
