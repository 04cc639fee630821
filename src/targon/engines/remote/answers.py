"""From the chunks of a backend to the steps of an answer, and whether the engine kept to what it was asked.

An engine over HTTP has a tokenizer, a template and an idea of where answers end of its own. Where they differ from
the model's, the prover in front of it would be blamed, so each is looked at on every answer: the prompt that it
read, how many tokens it counted, where it stopped, and the text that it made of the tokens.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final, NoReturn

from targon.engines.errors import EngineUnavailable
from targon.engines.port import Step
from targon.engines.remote.backend import Backend, Chunk, Ended, Prompt
from targon.engines.remote.folder import ModelFolder
from targon.engines.text_stream import TextStream
from targon.protocol.messages import FinishReason, Sampling
from targon.protocol.primitives import TokenId
from targon.protocol.text import REPLACEMENT

NAMED_TOKENS: Final = 3
"""How many tokens around a difference an error names."""
SPARE_EVENTS: Final = 64
"""Events without a token that a stream may hold, besides as many as it may hold tokens."""
MAX_LOGPROB: Final = 1e-3
"""Rounding may bring a log-probability this far above 0."""
MAX_NAME: Final = 100
"""Characters of a name that an error repeats."""
_NONSENSE: Final = (ArithmeticError, LookupError, ValueError)


async def steps(
    backend: Backend, model: str, folder: ModelFolder, prompt: Prompt, sampling: Sampling, run_key: int
) -> AsyncGenerator[Step, None]:
    """Generate one completion, a step per token; as :func:`batches`."""
    async with aclosing(batches(backend, model, folder, prompt, sampling, run_key)) as generated:
        async for batch in generated:
            for step in batch:
                yield step


async def batches(
    backend: Backend, model: str, folder: ModelFolder, prompt: Prompt, sampling: Sampling, run_key: int
) -> AsyncGenerator[list[Step], None]:
    """Generate one completion, a step per token. Closing the generator cancels the engine's work.

    The last step is known for it once the engine has ended its stream, which follows at once; those that came with it
    come with it here, too.

    Raises:
        TaskRefused, EngineBusy: as the backend does.
        EngineUnavailable: if the engine fails, or contradicts itself or the model's folder.
    """
    answer = _Answer(backend, model, folder, prompt, sampling)
    taken: list[Step] = []
    try:
        async with aclosing(backend.generate(model, prompt, sampling, run_key)) as chunks:
            async for chunk in chunks:
                taken += answer.take(chunk)
                if taken and not (answer.ended and not answer.cut):
                    yield taken
                    taken = []
                if answer.cut:
                    return
    except _NONSENSE as error:
        raise _unreadable(backend, error) from error
    yield [*taken, answer.last()]


@contextmanager
def reading(backend: Backend) -> Iterator[None]:
    """Numbers beyond all bounds, names that are no token's: what a backend can't make sense of is the engine's
    failure."""
    try:
        yield
    except _NONSENSE as error:
        raise _unreadable(backend, error) from error


def _unreadable(backend: Backend, error: Exception) -> EngineUnavailable:
    return EngineUnavailable(
        f"engine {backend.kind}: its answer cannot be read ({type(error).__name__}: {str(error)[:MAX_NAME]!r})"
    )


def most_events(max_tokens: int) -> int:
    """How many events the stream of an answer may have: the deadline of each bounds the time that it takes."""
    return 2 * max_tokens + SPARE_EVENTS


class _Answer:
    """One answer while it grows."""

    def __init__(
        self, backend: Backend, model: str, folder: ModelFolder, prompt: Prompt, sampling: Sampling
    ) -> None:
        self._backend = backend
        self._model = model
        self._folder = folder
        self._prompt = prompt
        self._limit = sampling.max_tokens
        self._stream = TextStream(folder.chat.growing_text(), eos_ids=folder.eos_ids, stop=sampling.stop)
        self._count = 0
        self._events = 0
        self._text: list[str] = []
        self._engine_text: list[str] = []
        self._ended: Ended | None = None
        self._last: Step | None = None
        self.cut = False
        """Whether a stop string ended the answer: what the engine goes on to say is of no interest."""

    @property
    def ended(self) -> bool:
        """Whether the engine said that this is all."""
        return self._ended is not None

    def take(self, chunk: Chunk) -> list[Step]:
        """The steps of a chunk. The last step of an answer is kept back until the engine has said that it is."""
        self._check(chunk)
        self._engine_text.append(chunk.text)
        self._ended = chunk.ended or self._ended
        steps = []
        for token_id, logprob in zip(chunk.token_ids, chunk.logprobs, strict=True):
            step = self._step(token_id, logprob)
            if step is not None:
                steps.append(step)
        return steps

    def last(self) -> Step:
        """The last step, once the engine's answer has ended."""
        if self._ended is None:
            self._fail(f"its answer broke off after {self._count} tokens")
        if self._last is None and self._backend.kind == "openai":
            # it has text, and no token ids: that there is no more of it is all that its end can mean
            self._step(self._folder.eos_ids[0], math.nan)
        if self._last is None:
            if self._ended == "length":
                self._fail(
                    f"it stopped after {self._count} tokens, expected {self._limit} or an end-of-sequence token: its "
                    "own limit is lower; start it with a longer context"
                )
            self._no_eos()
        if self._ended == "stop" and self._last.finish_reason == "length" and self._backend.kind != "openai":
            self._no_eos()
        self._check_text()
        return self._last

    def _no_eos(self) -> NoReturn:
        self._fail(
            f"it ended the answer after {self._count} tokens with none of the model's end-of-sequence tokens "
            f"{list(self._folder.eos_ids)}; its generation config or template is another than that of "
            f"{self._folder.path}"
        )

    def _step(self, token_id: TokenId, logprob: float) -> Step | None:
        if self.cut:
            return None
        if self._last is not None:
            self._fail(f"it goes on with token {token_id} after the answer's end")
        if not 0 <= token_id < self._folder.vocab_size:
            self._fail(
                f"got token id {token_id}, expected one below {self._folder.vocab_size}: it runs another model than "
                f"that of {self._folder.path}"
            )
        if logprob > 0.0:
            if logprob > MAX_LOGPROB:
                self._fail(f"got log-probability {logprob} of token {token_id}, expected none above 0")
            logprob = 0.0
        self._count += 1
        text, reason = self._stream.push(token_id, last=self._count >= self._limit)
        self._text.append(text)
        step = Step(token_id, text, logprob, reason)
        return self._closing(step, reason) if reason is not None else step

    def _closing(self, step: Step, reason: FinishReason) -> Step | None:
        if reason == "stop_string":
            self.cut = True
            return step
        self._last = step
        return None

    def _check(self, chunk: Chunk) -> None:
        self._events += 1
        if self._events > most_events(self._limit):
            self._fail(
                f"got {self._events} events without an end of the answer, expected at most {self._limit} tokens"
            )
        if len(chunk.logprobs) != len(chunk.token_ids):
            self._fail(
                f"got {len(chunk.token_ids)} token ids and {len(chunk.logprobs)} log-probabilities for them"
            )
        if chunk.model is not None and chunk.model != self._model:
            self._fail(f"it was answered by model {chunk.model[:MAX_NAME]!r}, expected {self._model!r}")
        read = chunk.prompt_token_ids
        if read is not None and read != self._prompt.token_ids:
            self._fail(f"it read another prompt than it was sent: {difference(read, self._prompt.token_ids)}")
        if chunk.prompt_tokens is not None and chunk.prompt_tokens != len(self._prompt.token_ids):
            self._fail(
                f"it read a prompt of {chunk.prompt_tokens} tokens, expected the {len(self._prompt.token_ids)} that "
                "it was sent"
            )
        if chunk.completion_tokens is not None and chunk.completion_tokens != self._count + len(
            chunk.token_ids
        ):
            self._fail(
                f"it says that it generated {chunk.completion_tokens} tokens, expected the "
                f"{self._count + len(chunk.token_ids)} that it streamed"
            )

    def _check_text(self) -> None:
        """Spaces, unfinished characters and what stop strings cut off are left out: there engines differ."""
        text = "".join(self._text)
        if REPLACEMENT in text:  # bytes that are no text: each engine has its own way with them
            return
        own, theirs = _letters(text), _letters("".join(self._engine_text))
        if theirs and own != theirs:
            place = first_difference(own, theirs)
            self._fail(
                f"its text isn't that of its token ids: got {theirs[place : place + 20]!r} at letter {place}, "
                f"expected {own[place : place + 20]!r}; its tokenizer is another than that of {self._folder.path}"
            )

    def _fail(self, what: str) -> NoReturn:
        raise EngineUnavailable(
            f"engine {self._backend.kind}: {what}; look at what the engine can do with `targon engine check`"
        )


def first_difference(one: Sequence[object], other: Sequence[object]) -> int:
    """Where two sequences differ first; the shorter one's length if they don't until then."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def difference(got: tuple[TokenId, ...], expected: tuple[TokenId, ...]) -> str:
    """Where two lists of tokens differ first, in words."""
    place = first_difference(got, expected)
    around = slice(place, place + NAMED_TOKENS)
    return (
        f"got {len(got)} tokens, expected {len(expected)}; at position {place} got {list(got[around])}, expected "
        f"{list(expected[around])}"
    )


def _letters(text: str) -> str:
    return "".join(text.replace(REPLACEMENT, "").split())
