"""The in-process engine: a transformers model in this very process, shared by concurrent requests.

Importing this module imports torch. A process that has to stay small talks to an engine in another one
(:mod:`targon.engines.client`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import torch
import transformers
from anyio import to_thread

from targon.engines.batch import Batch, Decoding
from targon.engines.chat import ChatTokenizer
from targon.engines.default_model import DEFAULT_MODEL_NAME, ensure_default_model
from targon.engines.model_digest import model_digest
from targon.engines.model_runner import ModelRunner, ReplayRow, ScoreRow
from targon.engines.model_thread import ModelThread
from targon.engines.port import (
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
)
from targon.engines.scheduler import Scheduler
from targon.engines.task_checks import (
    check_claim,
    check_length,
    check_sampler,
    check_token_ids,
    check_top_k,
)
from targon.engines.text_stream import TextStream
from targon.engines.variants import Choose, sampler_of
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import Digest, TokenId
from targon.protocol.text import answer_text

DEFAULT_MODEL = "default"
"""Names the default model wherever a model folder is asked for."""


@asynccontextmanager
async def open_transformers_engine(
    model: str | Path = DEFAULT_MODEL,
    *,
    name: str | None = None,
    dtype: str = "float32",
    variant: str | None = None,
    threads: int | None = None,
    max_batch: int = 8,
    max_queue: int = 64,
) -> AsyncIterator[TransformersEngine]:
    """Load a model and serve it until the block ends. Loading takes seconds, and the first time a conversion.

    Args:
        model: a folder in the Hugging Face layout, or ``"default"``.
        name: the name that requests use; by default the folder's, or the default model's.
        dtype: ``float32`` or ``bfloat16``.
        variant: run less than the model, to try verification (:func:`targon.engines.variants.apply_variant`).
        threads: how many threads torch may use; a setting of the whole process. None: torch's own choice.
        max_batch: how many completions are decoded at once.
        max_queue: how many more may wait; beyond that, tasks raise ``EngineBusy``.

    Raises:
        EngineUnavailable: if the model is not there or cannot be run.
        ValueError: if there is no such dtype or variant.
    """

    def load() -> tuple[ModelRunner, ChatTokenizer, Digest, str]:
        if threads is not None:
            torch.set_num_threads(threads)
        folder = ensure_default_model() if model == DEFAULT_MODEL else Path(model)
        digest = model_digest(folder)
        own_name = DEFAULT_MODEL_NAME if model == DEFAULT_MODEL else folder.resolve().name
        return ModelRunner(folder, dtype=dtype, variant=variant), ChatTokenizer(folder), digest, own_name

    with ModelThread() as thread:
        runner, chat, digest, own_name = await thread.run(load)
        engine_name = f"transformers {transformers.__version__}"
        identity = ModelIdentity(
            name=name or own_name,
            model_digest=digest,
            dtype=dtype,
            engine=engine_name if variant is None else f"{engine_name} ({variant})",
            vocab_size=int(runner.config.vocab_size),
            context_length=int(runner.config.max_position_embeddings),
            eos_ids=chat.eos_ids(getattr(runner.generation_config, "eos_token_id", None)),
            dialects=("targon/1", "greedy"),
            max_batch=max_batch,
        )
        engine = TransformersEngine(identity, runner, chat, thread, max_queue, sampler_of(variant))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run)
            try:
                yield engine
            finally:
                await engine.aclose()


class TransformersEngine:
    """The engine port over a model in this process; made by :func:`open_transformers_engine`."""

    def __init__(
        self,
        identity: ModelIdentity,
        runner: ModelRunner,
        chat: ChatTokenizer,
        thread: ModelThread,
        max_queue: int,
        choose: Choose,
    ) -> None:
        self._identity = identity
        self._chat = chat
        batch = Batch(runner, choose, identity.max_batch)
        self._scheduler = Scheduler(runner, batch, thread, max_batch=identity.max_batch, max_queue=max_queue)
        self._scope = anyio.CancelScope()

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def active(self) -> int:
        """How many completions are in the batch right now."""
        return self._scheduler.active

    async def run(self) -> None:
        """Work until :meth:`aclose`."""
        with self._scope:
            await self._scheduler.run()

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        check_sampler(task, self._identity.dialects)
        prompt = await self.prompt_token_ids(task.messages)
        check_length(len(prompt), task.sampling.max_tokens, "max_tokens", self._identity)
        text = TextStream(self._chat.growing_text(), eos_ids=self._identity.eos_ids, stop=task.sampling.stop)
        steps = self._scheduler.generate(Decoding(prompt, task.sampling, task.run_key), text)
        async with aclosing(steps):
            async for step in steps:
                yield step

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        return await self._scheduler.score([await self._score_row(task) for task in tasks]) if tasks else []

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return await self._scheduler.replay([await self._replay_row(task) for task in tasks]) if tasks else []

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        return await to_thread.run_sync(self._chat.encode, messages)

    async def tokenizer_json(self) -> str:
        return self._chat.as_json()

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        check_token_ids(token_ids, self._identity)
        return answer_text(token_ids, self._chat.decode, eos_ids=self._identity.eos_ids, stop=stop)

    async def check(self) -> None:
        self._scheduler.check()

    async def aclose(self) -> None:
        self._scope.cancel()

    async def _score_row(self, task: ScoreTask) -> ScoreRow:
        check_top_k(task, self._identity)
        return ScoreRow(await self._with_prompt(task), len(task.token_ids), task.top_k)

    async def _replay_row(self, task: ReplayTask) -> ReplayRow:
        check_sampler(task, self._identity.dialects)
        return ReplayRow(await self._with_prompt(task), len(task.token_ids), task.sampling, task.run_key)

    async def _with_prompt(self, task: ScoreTask | ReplayTask) -> tuple[TokenId, ...]:
        """The tokens of prompt and claim."""
        check_claim(task, self._identity)
        prompt = await self.prompt_token_ids(task.messages)
        check_length(len(prompt), len(task.token_ids), "claimed tokens", self._identity)
        return (*prompt, *task.token_ids)
