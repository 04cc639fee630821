"""SGLang's own API: token ids in and out, log-probabilities of given tokens, and the sampler as a logit processor.

Its documentation: https://docs.sglang.ai/basic_usage/native_api.html (the source of 0.5.23 was read for this).

Each event of a stream repeats all that came before it, unless the server was started with
``--incremental-streaming-output``, which long answers are served faster with. Log-probabilities of what it generates
are taken after temperature and logit processors: under ``targon/1`` they say nothing. A seed counts only where it was
started with ``--enable-deterministic-inference``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final
from uuid import uuid4

from pydantic import Field

from targon.engines.chat import turns
from targon.engines.errors import TaskRefused
from targon.engines.remote.answers import difference, most_events
from targon.engines.remote.backend import Chunk, Prompt, PromptLogprobs, Served
from targon.engines.remote.calls import Calls, Part
from targon.engines.remote.sglang_answers import ENDED, Answer, GrowingAnswer, Meta, scores
from targon.engines.sampler_arguments import sampler_arguments
from targon.engines.sglang_plugin import PROCESSOR
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId


class _Model(Part):
    id: str
    max_model_len: int | None = None


class _Models(Part):
    data: Annotated[tuple[_Model, ...], Field(min_length=1)]


_ROUTE: Final = "/generate"
_PLAIN: Final[dict[str, Any]] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""All of them, since a server may have been started with other defaults."""


class SglangBackend:
    """SGLang."""

    kind = "sglang"

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def served(self) -> Served:
        models = await self._calls.get("/v1/models", _Models)
        info = await self._first_of("/model_info", "/get_model_info")
        server = await self._first_of("/server_info", "/get_server_info")
        first = models.data[0]
        path, slots = info.get("model_path"), server.get("max_running_requests")
        return Served(
            engine=f"sglang {server.get('version') or ''}".strip(),
            model=first.id,
            models=tuple(model.id for model in models.data),
            folder=path if isinstance(path, str) else None,
            context_length=first.max_model_len,
            slots=slots if isinstance(slots, int) else None,
        )

    async def render(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...] | None:
        return _ids(await self._calls.offers("/tokenize", {"messages": turns(messages)}))

    async def tokenize(self, text: str) -> tuple[TokenId, ...] | None:
        return _ids(await self._calls.offers("/tokenize", {"prompt": text, "add_special_tokens": False}))

    async def generate(
        self,
        model: str,
        prompt: Prompt,
        sampling: Sampling,
        run_key: int,
        *,
        top: int = 0,
    ) -> AsyncGenerator[Chunk, None]:
        """As the protocol says. The most likely tokens under ``targon/1`` take a second request, which scores the
        answer: they come with the last chunk, which is the only one then."""
        if top and sampling.dialect == "targon/1":
            yield await self._scored(model, prompt, sampling, run_key, top)
            return
        async with aclosing(self._stream(prompt, sampling, run_key, top)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def prompt_logprobs(
        self,
        model: str,  # noqa: ARG002 - the server holds one
        token_ids: Sequence[TokenId],
        top: int,
    ) -> PromptLogprobs:
        if top < 0:
            raise TaskRefused("SGLang lists so many of the most likely tokens, never the whole vocabulary")
        rid = uuid4().hex
        body = {
            "rid": rid,
            "input_ids": list(token_ids),
            "sampling_params": {"max_new_tokens": 1, **_PLAIN},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": top,
            "return_prompt_token_ids": True,
        }
        answer = await self._calls.post(_ROUTE, body, Answer)
        meta = self._meta(answer, rid)
        if not meta.input_token_logprobs:
            raise TaskRefused(
                f"engine at {self._calls.url}: got no log-probabilities of given tokens, expected those of "
                f"{len(token_ids)}; it can't be a reference"
            )
        self._check_read(answer, meta, tuple(token_ids))
        return scores(self._calls, tuple(token_ids), meta, top)

    async def _stream(
        self, prompt: Prompt, sampling: Sampling, run_key: int, top: int
    ) -> AsyncGenerator[Chunk, None]:
        rid, logprobs = uuid4().hex, _is_plain(sampling)
        body = {
            "rid": rid,
            "input_ids": list(prompt.token_ids),
            "stream": True,
            "return_logprob": logprobs,
            "top_logprobs_num": top,
            **_sampler(sampling, run_key),
        }
        growing = GrowingAnswer(self._calls, top if logprobs else 0, logprobs=logprobs)
        async with aclosing(self._calls.events(_ROUTE, body)) as events:
            async for data in events:
                event = self._calls.parse(Answer, data, _ROUTE)
                yield growing.add(event, self._meta(event, rid))

    async def _scored(self, model: str, prompt: Prompt, sampling: Sampling, run_key: int, top: int) -> Chunk:
        """A whole answer, with what the model says of its tokens before any processor."""
        async with aclosing(self._stream(prompt, sampling, run_key, 0)) as chunks:
            parts: list[Chunk] = []
            async for chunk in chunks:
                parts.append(chunk)
                if len(parts) > most_events(sampling.max_tokens):
                    self._calls.fail(f"got {len(parts)} events for an answer of {sampling.max_tokens} tokens")
        ids = tuple(id_ for part in parts for id_ in part.token_ids)
        found = await self.prompt_logprobs(model, (*prompt.token_ids, *ids), top)
        rows = slice(len(prompt.token_ids) - 1, None)
        return Chunk(
            token_ids=ids,
            logprobs=tuple(found.logprobs[rows].tolist()),
            text="".join(part.text for part in parts),
            top=tuple(
                {TokenId(id_): value for id_, value in zip(row, values, strict=True)}
                for row, values in zip(
                    found.top_ids[rows].tolist(), found.top_logprobs[rows].tolist(), strict=True
                )
            ),
            ended=parts[-1].ended if parts else None,
            prompt_tokens=parts[-1].prompt_tokens if parts else None,
            completion_tokens=parts[-1].completion_tokens if parts else None,
        )

    def _meta(self, answer: Answer, rid: str) -> Meta:
        """What the engine says of an answer. Raises what an error in its place means."""
        if answer.error is not None:
            self._calls.fail_midway(answer.error.code, answer.error.message)
        meta = answer.meta_info
        if meta is None:
            self._calls.fail(
                "got an answer without meta_info, expected SGLang's own; is it another engine's?"
            )
        if meta.id != rid:
            self._calls.fail(
                f"got the answer to request {meta.id!r}, expected that to {rid!r}: it is another's"
            )
        if meta.finish_reason is not None and meta.finish_reason.type not in ENDED:
            self._calls.fail_midway(meta.finish_reason.status_code, meta.finish_reason.message)
        return meta

    def _check_read(self, answer: Answer, meta: Meta, sent: tuple[TokenId, ...]) -> None:
        read = answer.prompt_token_ids
        if read is not None and read != sent:
            self._calls.fail(f"it read other tokens than it was sent: {difference(read, sent)}")
        if meta.prompt_tokens != len(sent):
            self._calls.fail(
                f"got scores of {meta.prompt_tokens} tokens, expected {len(sent)}: it cut them short"
            )

    async def _first_of(self, *routes: str) -> dict[str, Any]:
        """The answer to the first of several names of a route that the engine has."""
        for route in routes:
            answer = await self._calls.offers(route)
            if isinstance(answer, dict):
                return answer
        return {}


def _sampler(sampling: Sampling, run_key: int) -> dict[str, Any]:
    """The parameters by which SGLang runs the sampler that a request names."""
    plain = {"max_new_tokens": sampling.max_tokens, **_PLAIN}
    if sampling.dialect == "greedy":
        return {"sampling_params": plain}
    if sampling.dialect == "native":
        own = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "sampling_seed": run_key & (1 << 63) - 1,
        }
        return {"sampling_params": {**plain, **own}}
    if sampling.dialect != "targon/1":
        raise TaskRefused(
            f"dialect: got {sampling.dialect!r}, expected 'targon/1', 'greedy' or 'native', which SGLang can run"
        )
    return {
        "sampling_params": {**plain, "custom_params": sampler_arguments(sampling, run_key)},
        "custom_logit_processor": PROCESSOR,
    }


def _is_plain(sampling: Sampling) -> bool:
    """Whether log-probabilities are those before temperature and processors, because there are none.

    Its cuts (top-k, top-p) come after them.
    """
    return sampling.dialect != "targon/1" and sampling.temperature in (0.0, 1.0)


def _ids(answer: object) -> tuple[TokenId, ...] | None:
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    return tuple(map(TokenId, tokens)) if isinstance(tokens, list) else None
