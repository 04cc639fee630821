"""vLLM's OpenAI-compatible server: token ids in and out, ``prompt_logprobs``, and the sampler as a plugin.

Its documentation: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from targon.engines.chat import turns
from targon.engines.errors import TaskRefused
from targon.engines.remote.backend import Chunk, Ended, Prompt, PromptLogprobs, Served
from targon.engines.remote.calls import Calls, Part
from targon.engines.sampler_arguments import sampler_arguments
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId


class _Model(Part):
    id: str
    root: str | None = None
    max_model_len: int | None = None


class _Models(Part):
    data: Annotated[tuple[_Model, ...], Field(min_length=1)]


class _Usage(Part):
    prompt_tokens: int
    completion_tokens: int = 0


class _Logprobs(Part):
    token_logprobs: tuple[float | None, ...] = ()
    top_logprobs: tuple[dict[str, float] | None, ...] | None = None


class _Choice(Part):
    text: str = ""
    token_ids: tuple[TokenId, ...] | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class _Failure(Part):
    message: str = ""


class _Event(Part):
    """One event of a streamed completion."""

    model: str | None = None
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: _Failure | None = None


class _Entry(Part):
    """The log-probability of a token, and its rank, counted from 1."""

    logprob: float
    rank: int | None = None


_Position = dict[str, _Entry]


class _ScoredChoice(Part):
    prompt_logprobs: tuple[_Position | None, ...] | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None


class _Scored(Part):
    id: str
    model: str
    choices: Annotated[tuple[_ScoredChoice, ...], Field(min_length=1)]
    usage: _Usage


_ROUTE: Final = "/v1/completions"
_LOWEST: Final = -9999.0
"""How vLLM writes a log-probability of minus infinity, which JSON has no word for."""


class VllmBackend:
    """vLLM."""

    kind = "vllm"

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def served(self) -> Served:
        models = await self._calls.get("/v1/models", _Models)
        version = await self._calls.offers("/version")
        number = version.get("version", "") if isinstance(version, dict) else ""
        first = models.data[0]
        return Served(
            engine=f"vllm {number}".strip(),
            model=first.id,
            models=tuple(model.id for model in models.data),
            folder=first.root,
            context_length=first.max_model_len,
        )

    async def render(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...] | None:
        return _ids(
            await self._calls.offers(
                "/tokenize", {"messages": turns(messages), "add_generation_prompt": True}
            )
        )

    async def tokenize(self, text: str) -> tuple[TokenId, ...] | None:
        return _ids(await self._calls.offers("/tokenize", {"prompt": text, "add_special_tokens": False}))

    async def generate(
        self, model: str, prompt: Prompt, sampling: Sampling, run_key: int, *, top: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        body = {
            "model": model,
            "prompt": list(prompt.token_ids),
            "max_tokens": sampling.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": top,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **_sampler(sampling, run_key),
        }
        async with aclosing(self._calls.event_batches(_ROUTE, body)) as batches:
            async for batch in batches:
                yield self._chunk(self._calls.parse_all(_Event, batch, _ROUTE), top)

    def _chunk(self, events: Sequence[_Event], top: int) -> Chunk:
        """What events that came together add to an answer; in one pass, as there is one for each token."""
        token_ids: list[TokenId] = []
        logprobs: list[float] = []
        texts: list[str] = []
        likely: list[dict[TokenId, float]] = []
        ended: Ended | None = None
        read: tuple[TokenId, ...] | None = None
        usage: _Usage | None = None
        model: str | None = None
        for event in events:
            if event.error is not None:
                self._calls.fail(f"it failed in the middle of an answer: {event.error.message}")
            model = event.model if model is None else model
            usage = event.usage or usage
            if not event.choices:
                continue
            choice = event.choices[0]
            ids, given = choice.token_ids or (), choice.logprobs
            token_ids += ids
            texts.append(choice.text)
            ended = choice.finish_reason or ended
            read = choice.prompt_token_ids if read is None else read
            if given is not None and given.token_logprobs:
                logprobs += map(_number, given.token_logprobs)
            else:
                logprobs += (math.nan,) * len(ids)
            if top and given is not None and given.top_logprobs:
                likely += map(_by_id, given.top_logprobs)
        return Chunk(
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            text="".join(texts),
            top=tuple(likely),
            ended=ended,
            prompt_token_ids=read,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
            model=model,
        )

    async def prompt_logprobs(self, model: str, token_ids: Sequence[TokenId], top: int) -> PromptLogprobs:
        body = {
            "model": model,
            "prompt": list(token_ids),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": top,
            "return_token_ids": True,
        }
        answer = await self._calls.post(_ROUTE, body, _Scored)
        choice = answer.choices[0]
        if choice.prompt_logprobs is None or choice.prompt_token_ids is None:
            raise TaskRefused(
                f"engine at {self._calls.url}: got no prompt log-probabilities, expected those of "
                f"{len(token_ids)} tokens; it can't be a reference"
            )
        if answer.usage.prompt_tokens != len(choice.prompt_token_ids) or answer.model != model:
            self._calls.fail(
                f"got scores of {answer.usage.prompt_tokens} tokens by model {answer.model!r}, expected "
                f"{len(choice.prompt_token_ids)} by {model!r}"
            )
        return _scores(self._calls, choice.prompt_token_ids, choice.prompt_logprobs, top, answer.id)


def _sampler(sampling: Sampling, run_key: int) -> dict[str, Any]:
    """The parameters by which vLLM runs the sampler that a request names."""
    if sampling.dialect == "native":
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "seed": run_key & (1 << 63) - 1,
        }
    plain = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    if sampling.dialect == "greedy":
        return plain
    return {**plain, "vllm_xargs": sampler_arguments(sampling, run_key)}


def _ids(answer: object) -> tuple[TokenId, ...] | None:
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    return tuple(map(TokenId, tokens)) if isinstance(tokens, list) else None


def _scores(
    calls: Calls,
    token_ids: tuple[TokenId, ...],
    positions: tuple[_Position | None, ...],
    top: int,
    answer: str,
) -> PromptLogprobs:
    """What stands in ``prompt_logprobs``, as arrays."""
    if len(positions) != len(token_ids) or positions[0] is not None:
        calls.fail(
            f"got prompt log-probabilities of {len(positions)} positions, expected {len(token_ids)}, of which the "
            "first has none"
        )
    count = len(token_ids) - 1
    width = max((len(one) for one in positions if one is not None), default=0) if top < 0 else top
    top_ids = np.empty((count, width), np.int32)
    top_logprobs = np.empty((count, width), np.float32)
    logprobs, ranks = np.empty(count, np.float32), np.empty(count, np.int32)
    for place, (token_id, entries) in enumerate(zip(token_ids[1:], positions[1:], strict=True)):
        own = None if entries is None else entries.get(str(token_id))
        if entries is None or own is None or len(entries) < width:
            calls.fail(
                f"got {len(entries or ())} log-probabilities at position {place + 1}, expected {width} and that of "
                f"token {token_id}: its answer was cut short, or belongs to another request"
            )
        order = sorted((-one.logprob, int(id_)) for id_, one in entries.items())[:width]
        top_logprobs[place] = [-value for value, _ in order]
        top_ids[place] = [id_ for _, id_ in order]
        logprobs[place], ranks[place] = own.logprob, (own.rank or 1) - 1
    top_logprobs[top_logprobs <= _LOWEST] = -math.inf
    logprobs[logprobs <= _LOWEST] = -math.inf
    return PromptLogprobs(np.array(token_ids[1:], np.int64), logprobs, ranks, top_ids, top_logprobs, answer)


def _number(value: float | None) -> float:
    return math.nan if value is None else -math.inf if value <= _LOWEST else value


def _by_id(entries: dict[str, float] | None) -> dict[TokenId, float]:
    """The most likely tokens of a position, which are named ``token_id:359``."""
    return {TokenId(int(name.removeprefix("token_id:"))): value for name, value in (entries or {}).items()}
