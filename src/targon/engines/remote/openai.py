"""Any plain OpenAI endpoint: text in, text out, and nothing that could be verified token by token.

Its documentation: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

from pydantic import Field

from targon.engines.chat import turns
from targon.engines.errors import TaskRefused
from targon.engines.remote.backend import Chunk, Ended, Prompt, ScoresNothing, Served
from targon.engines.remote.calls import Calls, Part
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId


class _Model(Part):
    id: str


class _Models(Part):
    data: Annotated[tuple[_Model, ...], Field(min_length=1)]


class _Delta(Part):
    content: str | None = None


class _Choice(Part):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Failure(Part):
    message: str = ""
    code: int | str | None = None


class _Event(Part):
    """One event of a streamed chat completion."""

    model: str | None = None
    choices: tuple[_Choice, ...] = ()
    error: _Failure | None = None


_ENDED: Final[dict[str, Ended]] = {"stop": "stop", "length": "length"}
_ROUTE: Final = "/v1/chat/completions"


class OpenAiBackend(ScoresNothing):
    """A plain OpenAI endpoint, which gives text: its token ids are those of the model folder's tokenizer.

    They need not be the ones that were drawn: each piece of text is encoded for itself, and a text can be written
    in other tokens than a model chose. So they have no log-probabilities, an end-of-sequence token is never
    among them, and no more of them are given than were asked for: what is beyond is cut off. The endpoint's own
    text is not repeated, and its own counts neither, as they are of other tokens.

    Args:
        encode: a text to the tokens of the model folder's tokenizer, none added.
    """

    kind = "openai"
    unscored = "a plain OpenAI endpoint scores no given tokens"

    def __init__(self, calls: Calls, encode: Callable[[str], tuple[TokenId, ...]]) -> None:
        self._calls = calls
        self._encode = encode

    async def served(self) -> Served:
        models = await self._calls.get("/v1/models", _Models)
        return Served(
            engine="openai",
            model=models.data[0].id,
            models=tuple(model.id for model in models.data),
        )

    async def render(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...] | None:  # noqa: ARG002
        return None

    async def tokenize(self, text: str) -> tuple[TokenId, ...] | None:  # noqa: ARG002
        return None

    async def generate(
        self,
        model: str,
        prompt: Prompt,
        sampling: Sampling,
        run_key: int,
        *,
        top: int = 0,  # noqa: ARG002 - there are no tokens whose likelihood it could report
    ) -> AsyncGenerator[Chunk, None]:
        body = {
            "model": model,
            "messages": turns(prompt.messages),
            "max_tokens": sampling.max_tokens,
            "stream": True,
            **_sampler(sampling, run_key),
        }
        left = sampling.max_tokens
        async with aclosing(self._calls.events(_ROUTE, body)) as events:
            async for data in events:
                chunk = self._chunk(self._calls.parse(_Event, data, _ROUTE), model)
                if len(chunk.token_ids) > left:
                    yield Chunk(chunk.token_ids[:left], (math.nan,) * left, ended="length", model=chunk.model)
                    return
                left -= len(chunk.token_ids)
                yield chunk

    def _chunk(self, event: _Event, model: str) -> Chunk:
        if event.error is not None:
            self._calls.fail_midway(event.error.code, event.error.message)
        said = event.model
        if said is not None and said.startswith(model):
            said = model  # names of models are short for those of their revisions
        if not event.choices:
            return Chunk(model=said)
        choice = event.choices[0]
        if choice.finish_reason is not None and choice.finish_reason not in _ENDED:
            self._calls.fail(f"it ended an answer by {choice.finish_reason!r}, expected 'stop' or 'length'")
        token_ids = self._encode(choice.delta.content) if choice.delta.content else ()
        return Chunk(
            token_ids=token_ids,
            logprobs=(math.nan,) * len(token_ids),
            ended=None if choice.finish_reason is None else _ENDED[choice.finish_reason],
            model=said,
        )


def _sampler(sampling: Sampling, run_key: int) -> dict[str, Any]:
    """The parameters by which an endpoint samples as it will."""
    if sampling.dialect != "native":
        raise TaskRefused(
            f"dialect: got {sampling.dialect!r}, expected 'native', the only one of a plain OpenAI endpoint"
        )
    if sampling.top_k:
        raise TaskRefused(f"top_k: got {sampling.top_k}, expected 0 (off): a plain OpenAI endpoint has none")
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": run_key & 0x7FFFFFFF}
