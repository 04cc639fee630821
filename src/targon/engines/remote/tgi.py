"""Text Generation Inference (TGI): prompts as text, token ids and log-probabilities out, no scoring.

Its documentation: https://huggingface.github.io/text-generation-inference/ (the router of 3.3 was read for this).

The router tokenizes every prompt itself and adds the special tokens that the tokenizer adds to any text, which a
rendered conversation has already: it would begin with two. Every request is refused or served in a stream that has
begun, so errors come as events. Log-probabilities are taken after temperature and cuts.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal, NoReturn

from pydantic import TypeAdapter, ValidationError

from targon.engines.chat import turns
from targon.engines.errors import EngineBusy, TaskRefused
from targon.engines.remote.answers import difference
from targon.engines.remote.backend import Chunk, Ended, Prompt, ScoresNothing, Served
from targon.engines.remote.calls import Calls, Part
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId


class _Info(Part):
    model_id: str
    version: str = ""
    max_total_tokens: int | None = None
    max_concurrent_requests: int | None = None


class _Read(Part):
    """A token of a text that the engine read."""

    id: TokenId
    text: str = ""


class _Rendered(Part):
    tokenize_response: tuple[_Read, ...]


class _Token(Part):
    id: TokenId
    text: str = ""
    logprob: float | None = None
    special: bool = False


class _Details(Part):
    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    input_length: int | None = None


class _Event(Part):
    """One event of a stream: a token, or what went wrong."""

    token: _Token | None = None
    top_tokens: tuple[_Token, ...] | None = None
    details: _Details | None = None
    error: str | None = None
    error_type: str = ""


class _Prefilled(Part):
    prefill: tuple[_Token, ...] = ()


class _Generated(Part):
    details: _Prefilled | None = None


_READ: Final = TypeAdapter(tuple[_Read, ...])
_ENDED: Final[dict[str, Ended]] = {"eos_token": "stop", "length": "length"}
_ROUTE: Final = "/generate_stream"
_WHOLE: Final = "/generate"
_STATUSES: Final = {
    "validation": 422,
    "template_error": 422,
    "missing_template_variable": 422,
    "tool_error": 422,
    "overloaded": 429,
}
"""As which kinds of error the router would answer, had it not begun a stream; any other is the engine's failure."""


class TgiBackend(ScoresNothing):
    """Text Generation Inference."""

    kind = "tgi"
    unscored = "TGI reports how likely given tokens are, but not which would have been likelier"

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._doubled: str | None = None

    async def served(self) -> Served:
        try:
            await self._calls.offers("/health")
        except EngineBusy as error:
            self._calls.fail(f"it says that it isn't healthy ({error}); look at its log")
        info = await self._calls.get("/info", _Info)
        return Served(
            engine=f"tgi {info.version}".strip(),
            model=info.model_id,
            models=(info.model_id,),
            folder=info.model_id,
            context_length=info.max_total_tokens,
            slots=info.max_concurrent_requests,
        )

    async def render(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...] | None:
        answer = await self._calls.offers("/chat_tokenize", {"messages": turns(messages)})
        try:
            return None if answer is None else _ids(_Rendered.model_validate(answer).tokenize_response)
        except ValidationError as error:
            self._unreadable("/chat_tokenize", error)

    async def tokenize(self, text: str) -> tuple[TokenId, ...] | None:
        """A text's tokens, without those that the engine adds in front of any text."""
        added, read = await self._read(""), await self._read(text)
        if added is None or read is None or read[: len(added)] != added:
            return None
        return _ids(read[len(added) :])

    async def generate(
        self,
        model: str,  # noqa: ARG002 - the server holds one
        prompt: Prompt,
        sampling: Sampling,
        run_key: int,
        *,
        top: int = 0,
    ) -> AsyncGenerator[Chunk, None]:
        sampler = _sampler(sampling, run_key)
        parameters = {"max_new_tokens": sampling.max_tokens, "details": True, **sampler}
        plain = _is_plain(sampling)
        if top and plain:
            parameters["top_n_tokens"] = top
        body = {"inputs": await self._inputs(prompt), "parameters": parameters}
        async with aclosing(self._calls.events(_ROUTE, body)) as events:
            async for data in events:
                yield self._chunk(self._calls.parse(_Event, data, _ROUTE), plain=plain)

    async def prefill_logprobs(self, text: str) -> tuple[tuple[TokenId, float | None], ...]:
        """The tokens of a text as the engine reads it, its own additions included, each with its log-probability.

        The first has none, nor has any that the engine took from its cache. Nothing at all if it reports none.
        """
        parameters = {"max_new_tokens": 1, "do_sample": False, "details": True, "decoder_input_details": True}
        answer = await self._calls.post(_WHOLE, {"inputs": text, "parameters": parameters}, _Generated)
        return tuple((token.id, token.logprob) for token in (answer.details or _Prefilled()).prefill)

    def _chunk(self, event: _Event, *, plain: bool) -> Chunk:
        if event.error is not None:
            kind = event.error_type
            self._calls.fail_midway(_STATUSES.get(kind), f"{event.error} ({kind or 'no reason given'})")
        if event.token is None:
            self._calls.fail("got an event of its answer without a token, expected one in each")
        token, details = event.token, event.details
        if details is not None and details.finish_reason not in _ENDED:
            self._calls.fail(
                f"it ended an answer by {details.finish_reason!r}, but was asked for no stop sequences; start it "
                "without any of its own"
            )
        return Chunk(
            token_ids=(token.id,),
            logprobs=(_number(token.logprob) if plain else math.nan,),
            text="" if token.special else token.text,
            top=({one.id: _number(one.logprob) for one in event.top_tokens},) if event.top_tokens else (),
            ended=None if details is None else _ENDED[details.finish_reason],
            prompt_tokens=None if details is None else details.input_length,
            completion_tokens=None if details is None else details.generated_tokens,
        )

    async def _inputs(self, prompt: Prompt) -> str:
        """The text that the engine reads as the prompt's tokens."""
        if self._doubled is None:
            self._doubled = await self._find_doubled(prompt)
        if not prompt.text.startswith(self._doubled):
            self._calls.fail(
                f"it puts {self._doubled!r} in front of every prompt, but this one begins with "
                f"{prompt.text[:20]!r}: its tokenizer is another than the model's"
            )
        return prompt.text[len(self._doubled) :]

    async def _find_doubled(self, prompt: Prompt) -> str:
        """The start of a rendered conversation that the engine would put in front of it a second time.

        Raises:
            EngineUnavailable: if it reads the prompt as other tokens in any other way.
        """
        read = await self._read(prompt.text)
        if read is None:
            self._calls.fail(
                "it has no /tokenize, which tells how it reads prompts; start it with a fast tokenizer"
            )
        doubled = ""
        if len(read) > 1 and _ids(read) == (*prompt.token_ids[:1], *prompt.token_ids):
            doubled = read[1].text
            read = await self._read(prompt.text.removeprefix(doubled)) or ()
        if _ids(read) != prompt.token_ids:
            self._calls.fail(
                "it reads prompts as other tokens than the model's tokenizer gives: "
                f"{difference(_ids(read), prompt.token_ids)}; its tokenizer is another, or adds tokens of its own"
            )
        return doubled

    async def _read(self, text: str) -> tuple[_Read, ...] | None:
        """The tokens that the engine reads a text as, its own additions included."""
        answer = await self._calls.offers("/tokenize", {"inputs": text})
        try:
            return None if answer is None else _READ.validate_python(answer)
        except ValidationError as error:
            self._unreadable("/tokenize", error)

    def _unreadable(self, route: str, error: ValidationError) -> NoReturn:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole answer"
        self._calls.fail(f"its answer to {route} cannot be read ({field}: {first['msg']})")


def _sampler(sampling: Sampling, run_key: int) -> dict[str, Any]:
    """The parameters by which TGI runs the sampler that a request names.

    What is off must be left out: ``top_p`` 1 is refused, and any of them makes greedy generation sample.
    """
    if sampling.dialect not in ("greedy", "native"):
        raise TaskRefused(
            f"dialect: got {sampling.dialect!r}, expected 'greedy' or 'native', which TGI can run"
        )
    if sampling.temperature == 0.0:
        return {"do_sample": False}
    cuts: dict[str, Any] = {}
    if sampling.top_p < 1.0:
        cuts["top_p"] = sampling.top_p
    if sampling.top_k > 0:
        cuts["top_k"] = sampling.top_k
    # its specification wants seeds above 0
    seed = (run_key & (1 << 63) - 1) or 1
    return {"do_sample": True, "temperature": sampling.temperature, "seed": seed, **cuts}


def _is_plain(sampling: Sampling) -> bool:
    """Whether log-probabilities are those before temperature and cuts, because there are none."""
    return sampling.temperature == 0.0 or (
        sampling.temperature == 1.0 and sampling.top_p == 1.0 and sampling.top_k == 0
    )


def _ids(read: tuple[_Read, ...]) -> tuple[TokenId, ...]:
    return tuple(token.id for token in read)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
