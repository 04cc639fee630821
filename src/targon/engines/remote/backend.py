"""What the adapters of engines over HTTP have in common: what one must say of itself, and the form of its answers.

A backend speaks one engine's own API, and no more: it builds requests and reads answers. What they mean (steps,
stop strings, scores, whether the engine contradicts itself) is decided once, in
:mod:`targon.engines.remote.engine`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from targon.engines.errors import TaskRefused
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId

Ended = Literal["stop", "length"]
"""Why an engine stopped: it drew an end-of-sequence token, or it was at the length that it was allowed."""


@dataclass(frozen=True, slots=True)
class Served:
    """What an engine says of itself."""

    engine: str
    """Its name and version: ``vllm 0.32.0``."""
    model: str
    """The name under which it serves the model."""
    models: tuple[str, ...]
    """All names that it serves."""
    folder: str | None = None
    """Where it says that it has the model from: a folder on its machine, or a name on a hub."""
    context_length: int | None = None
    vocab_size: int | None = None
    slots: int | None = None
    """How many requests it works on at once."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation, in each form that an engine may want."""

    messages: tuple[ChatMessage, ...]
    text: str
    """As the model's chat template renders it."""
    token_ids: tuple[TokenId, ...]


class Chunk(NamedTuple):
    """What one event of a stream adds to an answer. One is made for each token: this is the quickest type to make."""

    token_ids: tuple[TokenId, ...] = ()
    logprobs: tuple[float, ...] = ()
    """As many as token ids, natural, before temperature and cuts; NaN where the engine has none."""
    text: str = ""
    """The engine's own text of them."""
    top: tuple[Mapping[TokenId, float], ...] = ()
    """The most likely tokens at each of them, where they were asked for."""
    ended: Ended | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    """The prompt as the engine says that it read it."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """How many there are in all, as the engine counts them; on the last event."""
    model: str | None = None
    """The model that the engine says that it answers with."""


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """What an engine says of given tokens, for all positions but the first."""

    token_ids: NDArray[np.int64]
    """``(positions,) int64``: the tokens as the engine read them, the first one left out."""
    logprobs: NDArray[np.float32]
    """``(positions,) float32``: theirs."""
    ranks: NDArray[np.int32]
    """``(positions,) int32``: how many are more likely; at least that many, where the list doesn't reach so far."""
    top_ids: NDArray[np.int32]
    """``(positions, k) int32``, most likely first."""
    top_logprobs: NDArray[np.float32]
    """``(positions, k) float32``."""
    answer: str
    """The engine's name for this answer; no two have the same."""


class Backend(Protocol):
    """One engine's API. Errors are those of the engines room."""

    kind: str
    """``vllm``, ``sglang``, ``llama.cpp``, ``tgi`` or ``openai``."""

    async def served(self) -> Served:
        """What the engine says of itself."""
        ...

    async def render(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...] | None:
        """A conversation by the engine's own template and tokenizer; None if it doesn't tell."""
        ...

    async def tokenize(self, text: str) -> tuple[TokenId, ...] | None:
        """A text by the engine's own tokenizer, nothing added; None if it doesn't tell."""
        ...

    def generate(
        self, model: str, prompt: Prompt, sampling: Sampling, run_key: int, *, top: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Generate by the sampler that ``sampling.dialect`` names. Stop strings are not the engine's business.

        Args:
            top: how many of the most likely tokens to report at each position.
        """
        ...

    async def prompt_logprobs(self, model: str, token_ids: Sequence[TokenId], top: int) -> PromptLogprobs:
        """Score given tokens.

        Raises:
            TaskRefused: if the engine can't.
        """
        ...


class ScoresNothing:
    """What backends share whose engines can't say what would have been likely in place of given tokens."""

    unscored: ClassVar[str]
    """What the engine doesn't tell, as a sentence."""

    async def prompt_logprobs(
        self,
        model: str,  # noqa: ARG002
        token_ids: Sequence[TokenId],  # noqa: ARG002
        top: int,  # noqa: ARG002
    ) -> PromptLogprobs:
        raise TaskRefused(f"{self.unscored}: it can serve a prover, but be no reference")
