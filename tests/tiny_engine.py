"""An engine that needs no model: letters, drawn by the real sampler from made-up logits.

The logits of a position follow from the prompt and the tokens before it, so that two of these engines agree
with one another, as two engines that run the same model do.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence

import anyio
import numpy as np

from targon.engines import (
    EngineUnavailable,
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
    TaskRefused,
)
from targon.protocol.messages import ChatMessage, Dialect, FinishReason
from targon.protocol.primitives import Digest, TokenId
from targon.protocol.replay import replay_tokens
from targon.protocol.sampler import choose
from targon.protocol.text import answer_text

EOS = TokenId(0)
VOCABULARY = 27


class TinyEngine:
    """The engine port, at once.

    Attributes:
        down: whether it fails whatever it is asked.
        wrong: whether it draws noise that nobody asked for; where there is no noise, it reads another prompt.
        pause_s: how long each token takes.
        dialects: what it offers. In ``native`` it draws noise of its own.
        asked: every task that it was given.
    """

    def __init__(
        self,
        *,
        down: bool = False,
        wrong: bool = False,
        pause_s: float = 0.0,
        dialects: tuple[Dialect, ...] = ("targon/1", "greedy"),
    ) -> None:
        self.down = down
        self.wrong = wrong
        self.pause_s = pause_s
        self.dialects = dialects
        self.asked: list[GenerateTask] = []

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            name="tiny",
            model_digest=Digest("d" * 64),
            dtype="float32",
            engine="tiny 1",
            vocab_size=VOCABULARY,
            context_length=100_000,
            eos_ids=(EOS,),
            dialects=self.dialects,
            max_batch=16,
        )

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        await self.check()
        self.asked.append(task)
        ids: list[TokenId] = []
        told = ""
        prompt = "".join(message.content for message in task.messages)
        sampling, key = task.sampling, task.run_key ^ int(self.wrong)
        if self.wrong and (sampling.temperature == 0.0 or sampling.dialect == "native"):
            prompt = f"{prompt}!"
        if sampling.dialect == "native":
            sampling, key = sampling.model_copy(update={"dialect": "targon/1"}), ~key & (1 << 64) - 1
        while True:
            await anyio.sleep(self.pause_s)
            logits = _logits(prompt, ids)
            token = choose(logits, sampling, key, len(ids))
            ids.append(token)
            text = await self.text(ids, sampling.stop)
            whole = "".join(map(_letter, ids))
            reason: FinishReason | None = None
            if token == EOS:
                reason = "stop"
            elif any(stop in whole for stop in sampling.stop):
                reason = "stop_string"
            elif len(ids) == sampling.max_tokens:
                reason = "length"
            yield Step(token, text[len(told) :], float(_logprobs(logits)[token]), reason)
            told = text
            if reason is not None:
                return

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        await self.check()
        return [self._score(task) for task in tasks]

    def _score(self, task: ScoreTask) -> Scores:
        prompt = "".join(message.content for message in task.messages)
        places = range(len(task.token_ids))
        logprobs = np.stack([_logprobs(_logits(prompt, task.token_ids[:place])) for place in places])
        own = logprobs[np.arange(len(places)), list(task.token_ids)]
        order = np.argsort(-logprobs, axis=1, kind="stable")[:, : task.top_k]
        return Scores(
            top_ids=order.astype(np.int32),
            top_logprobs=np.take_along_axis(logprobs, order, axis=1),
            claimed_logprobs=own,
            claimed_ranks=(logprobs > own[:, None]).sum(axis=1, dtype=np.int32),
            prompt_tokens=1,
        )

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        await self.check()
        return [self._replay(task) for task in tasks]

    def _replay(self, task: ReplayTask) -> Replayed:
        unknown = [token for token in task.token_ids if not 0 <= token < VOCABULARY]
        if unknown or not task.token_ids:
            raise TaskRefused(f"token ids: got {task.token_ids}, expected some from 0 to {VOCABULARY - 1}")
        prompt = "".join(message.content for message in task.messages)
        logits = np.stack([_logits(prompt, task.token_ids[:place]) for place in range(len(task.token_ids))])
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        claimed = np.array(task.token_ids)
        own = logprobs[np.arange(claimed.size), claimed]
        replay = replay_tokens(
            np.broadcast_to(np.arange(VOCABULARY), logits.shape),
            logits,
            claimed,
            own,
            vocab_size=VOCABULARY,
            sampling=task.sampling,
            run_key=task.run_key,
        )
        ranks = (logprobs > own[:, None]).sum(axis=1, dtype=np.int32)
        return Replayed(replay, own, ranks, prompt_tokens=1)

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        await self.check()
        return (TokenId(1),)

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        await self.check()
        return answer_text(
            token_ids, lambda ids: "".join(map(_letter, ids)), eos_ids=self.identity.eos_ids, stop=stop
        )

    async def check(self) -> None:
        if self.down:
            raise EngineUnavailable("the tiny engine is down")

    async def aclose(self) -> None:
        pass


def _letter(token: int) -> str:
    return chr(ord("a") - 1 + token)


def _logits(prompt: str, ids: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    seed = hashlib.sha256(prompt.encode() + bytes(ids)).digest()
    logits = np.random.default_rng(list(seed)).normal(size=VOCABULARY).astype(np.float32)
    logits[EOS] -= 3
    return logits


def _logprobs(
    logits: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return logits - np.logaddexp.reduce(logits)


class SayingEngine(TinyEngine):
    """Says what it is told to, one line for each task."""

    def __init__(
        self,
        *said: str,
        finish: FinishReason = "stop_string",
        dialects: tuple[Dialect, ...] = ("targon/1", "greedy"),
        down: bool = False,
    ) -> None:
        super().__init__(dialects=dialects, down=down)
        self.said = list(said)
        self.finish = finish

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        await self.check()
        self.asked.append(task)
        first, _, rest = self.said.pop(0).partition(" ")
        yield Step(TokenId(1), first, -0.1)
        yield Step(TokenId(2), f" {rest}", -0.1, self.finish)
