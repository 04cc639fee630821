"""llama.cpp's own HTTP server: token ids in and out, a log-probability for each, no scoring.

In a stream it holds tokens back that end in the middle of a character, and then names only the last of them. Its count
shows that. So, at the first such character, the rest of the answer is asked for in whole pieces, which name them all.

Its documentation: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from targon.engines.chat import turns
from targon.engines.errors import TaskRefused
from targon.engines.remote.backend import Chunk, Ended, Prompt, ScoresNothing, Served
from targon.engines.remote.calls import Calls, Part
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId


class _Meta(Part):
    n_vocab: int | None = None
    n_ctx: int | None = None


class _Model(Part):
    id: str
    meta: _Meta | None = None


class _Models(Part):
    data: Annotated[tuple[_Model, ...], Field(min_length=1)]


class _Likely(Part):
    id: TokenId
    logprob: float


class _Drawn(_Likely):
    top_logprobs: tuple[_Likely, ...] = ()


class _Failure(Part):
    message: str = ""


class _Event(Part):
    """One event of a streamed completion."""

    content: str = ""
    tokens: tuple[TokenId, ...] = ()
    completion_probabilities: tuple[_Drawn, ...] = ()
    stop: bool = False
    stop_type: Literal["none", "eos", "limit", "word"] | None = None
    truncated: bool = False
    tokens_evaluated: int | None = None
    tokens_predicted: int | None = None
    model: str | None = None
    error: _Failure | None = None

    def chunk(self) -> Chunk:
        drawn = self.completion_probabilities
        return Chunk(
            token_ids=self.tokens,
            logprobs=_aligned(self.tokens, drawn),
            text=self.content,
            top=tuple({one.id: one.logprob for one in position.top_logprobs} for position in drawn),
            ended=_ENDED.get(self.stop_type or "none") if self.stop else None,
            prompt_tokens=self.tokens_evaluated if self.stop else None,
            completion_tokens=self.tokens_predicted if self.stop else None,
            model=self.model,
        )


def _aligned(tokens: tuple[TokenId, ...], drawn: tuple[_Drawn, ...]) -> tuple[float, ...]:
    """The log-probability of each token; NaN for those that end within a character, which have none."""
    left = deque(drawn)
    return tuple(left.popleft().logprob if left and left[0].id == id_ else math.nan for id_ in tokens)


_ENDED: Final[dict[str, Ended]] = {"eos": "stop", "limit": "length"}
_ROUTE: Final = "/completion"
_PIECE: Final = 32
"""Tokens that are asked for in one piece: a second or so, and nobody takes the silence for failure."""
_OFF: Final[dict[str, Any]] = {
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
    "mirostat": 0,
}
"""What the server does to logits unless it is told not to."""


class LlamaCppBackend(ScoresNothing):
    """llama.cpp's server."""

    kind = "llama.cpp"
    unscored = "llama.cpp's server reports no log-probabilities of given tokens"

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def served(self) -> Served:
        models = await self._calls.get("/v1/models", _Models)
        said = await self._calls.offers("/props")
        props = said if isinstance(said, dict) else {}
        first = models.data[0]
        meta = first.meta or _Meta()
        build = str(props.get("build_info") or "")
        return Served(
            engine=f"llama.cpp {build}".strip(),
            model=first.id,
            models=tuple(model.id for model in models.data),
            folder=props.get("model_path"),
            context_length=_slot_context(props) or meta.n_ctx,
            vocab_size=meta.n_vocab,
            slots=props.get("total_slots"),
        )

    async def render(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...] | None:
        answer = await self._calls.offers("/apply-template", {"messages": turns(messages)})
        text = answer.get("prompt") if isinstance(answer, dict) else None
        return await self.tokenize(text) if isinstance(text, str) else None

    async def tokenize(self, text: str) -> tuple[TokenId, ...] | None:
        answer = await self._calls.offers(
            "/tokenize", {"content": text, "add_special": False, "parse_special": True}
        )
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        return tuple(map(TokenId, tokens)) if isinstance(tokens, list) else None

    async def generate(
        self,
        model: str,
        prompt: Prompt,
        sampling: Sampling,
        run_key: int,
        *,
        top: int = 0,
    ) -> AsyncGenerator[Chunk, None]:
        body = {
            "model": model,
            "return_tokens": True,
            "n_probs": max(top, 1),
            "cache_prompt": True,
            **_OFF,
            **_sampler(sampling, run_key),
        }
        told: list[TokenId] = []
        streamed = {
            "prompt": list(prompt.token_ids),
            "n_predict": sampling.max_tokens,
            "stream": True,
            **body,
        }
        async with aclosing(self._calls.events(_ROUTE, streamed)) as events:
            async for data in events:
                event = self._checked(self._calls.parse(_Event, data, _ROUTE))
                if event.tokens_predicted is not None and event.tokens_predicted > len(told) + len(
                    event.tokens
                ):
                    break
                told += event.tokens
                yield event.chunk()
            else:
                return
        while len(told) < sampling.max_tokens:
            left = min(_PIECE, sampling.max_tokens - len(told))
            rest = {"prompt": [*prompt.token_ids, *told], "n_predict": left, "stream": False, **body}
            piece = self._checked(await self._calls.post(_ROUTE, rest, _Event))
            told += piece.tokens
            done = piece.stop_type != "limit" or not piece.tokens or len(told) >= sampling.max_tokens
            yield piece.chunk()._replace(
                ended=_ENDED.get(piece.stop_type or "none") if done else None,
                prompt_tokens=None,
                completion_tokens=len(told) if done else None,
            )
            if done:
                return

    def _checked(self, event: _Event) -> _Event:
        if event.error is not None:
            self._calls.fail(f"it failed in the middle of an answer: {event.error.message}")
        if event.truncated:
            self._calls.fail("it cut the prompt short to make it fit; give it a larger context (-c)")
        return event


def _slot_context(props: dict[str, Any]) -> int | None:
    """How many tokens one request may have: the server divides its context among its slots."""
    settings = props.get("default_generation_settings")
    length = settings.get("n_ctx") if isinstance(settings, dict) else None
    return length if isinstance(length, int) and length > 0 else None


def _sampler(sampling: Sampling, run_key: int) -> dict[str, Any]:
    """The parameters by which the server runs the sampler that a request names."""
    if sampling.dialect not in ("greedy", "native"):
        raise TaskRefused(
            f"dialect: got {sampling.dialect!r}, expected 'greedy' or 'native' of llama.cpp's server"
        )
    if sampling.dialect == "greedy":
        return {"temperature": 0.0, "top_k": 1, "top_p": 1.0, "samplers": ["top_k"]}
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": run_key & 0x7FFFFFFF,
        "samplers": ["temperature", "top_k", "top_p"],
    }
