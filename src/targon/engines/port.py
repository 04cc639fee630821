"""The engine port: what TARGON needs of anything that runs a model.

Two things: *generate* tokens for a conversation, as a stream, with a named sampler; and *score* given
tokens, which is one prefill and no decoding, and therefore tens of times cheaper. To *replay* is to score,
and to say at once what the sampler would have drawn: what comes back is a few numbers per token instead of
a vocabulary.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from targon.protocol.messages import ChatMessage, Dialect, FinishReason, Sampling
from targon.protocol.primitives import Digest, Hotkey, TokenId
from targon.protocol.replay import Replay


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model an engine runs, and how."""

    name: str
    """The name that requests use."""
    model_digest: Digest
    """Digest of weights, tokenizer, chat template and sampling defaults."""
    dtype: str
    """Number format of weights and arithmetic: ``float32`` or ``bfloat16``, say."""
    engine: str
    """The engine and its version: ``transformers 5.19.0``, say."""
    vocab_size: int
    """Token ids are in ``[0, vocab_size)``."""
    context_length: int
    """Most tokens of prompt and completion together."""
    eos_ids: tuple[TokenId, ...]
    dialects: tuple[Dialect, ...]
    """The samplers that this engine can run."""
    max_batch: int
    """How many requests it decodes at once; more wait."""


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One completion to generate."""

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    run_key: int
    """64-bit key of the sampler's noise (:func:`targon.protocol.draws.run_key`); unused at T = 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token."""

    token_id: TokenId
    text: str
    """What this token adds to the answer's text. Text that could still turn out to be the start of a stop
    string, or half a character, is held back and comes with a later step; the concatenation over all steps
    is :func:`targon.protocol.text.answer_text` of all the token ids."""
    logprob: float
    """Natural-log probability of the token before temperature, top-k and top-p."""
    finish_reason: FinishReason | None = None
    """Set on the last step only."""


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """One completion to score: a prompt, and the tokens that somebody claims followed it."""

    messages: tuple[ChatMessage, ...]
    token_ids: tuple[TokenId, ...]
    top_k: int
    """How many of the most likely tokens to report per position; 0: the whole vocabulary, unordered."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model thinks of given tokens, from one prefill; position i predicts ``token_ids[i]``.

    All log-probabilities are natural, of the raw distribution (temperature 1, nothing cut).
    """

    top_ids: NDArray[np.int32]
    """``(positions, k) int32``, most likely first; with ``top_k = 0``: ``(positions, vocab_size)``, id order."""
    top_logprobs: NDArray[np.float32]
    """``(positions, k) float32``, of ``top_ids``."""
    claimed_logprobs: NDArray[np.float32]
    """``(positions,) float32``, of the claimed tokens."""
    claimed_ranks: NDArray[np.int32]
    """``(positions,) int32``: how many tokens are more likely than the claimed one (0: none)."""
    prompt_tokens: int
    """Length of the rendered prompt."""


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """One completion to replay: a prompt, the tokens that somebody claims followed it, and how they were to
    be drawn."""

    messages: tuple[ChatMessage, ...]
    token_ids: tuple[TokenId, ...]
    sampling: Sampling
    run_key: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the model and the sampler say of given tokens, from one prefill.

    A position whose logits were not numbers has NaN for gap, margin and log-probability: the engine is
    broken, and nothing can be said.
    """

    replay: Replay
    claimed_logprobs: NDArray[np.float32]
    """``(positions,) float32``, natural, of the raw distribution (temperature 1, nothing cut)."""
    claimed_ranks: NDArray[np.int32]
    """``(positions,) int32``: how many tokens are more likely than the claimed one (0: none)."""
    prompt_tokens: int
    """Length of the rendered prompt."""
    top_k: int = 0
    """How many of the most likely tokens were seen per position; 0: the whole vocabulary."""


@runtime_checkable
class Tokenized(Protocol):
    """An engine that can hand out its tokenizer, so that token ids become text without asking it each time."""

    async def tokenizer_json(self) -> str:
        """It, in the form of a ``tokenizer.json``."""
        ...


@runtime_checkable
class Borrowed(Protocol):
    """An engine that others run and lend: what it says is what enough of them say alike."""

    @property
    def lent_by(self) -> Sequence[Hotkey]:
        """Whose engines it is, in order of preference."""
        ...

    @property
    def agreeing(self) -> int:
        """How many of them have to agree."""
        ...


class Engine(Protocol):
    """Anything that runs a model. One conformance suite runs against every adapter.

    Errors are those of :mod:`targon.engines.errors`: a task that no engine could serve raises
    ``TaskRefused``; an engine that cannot be reached or broke raises ``EngineUnavailable``.
    """

    @property
    def identity(self) -> ModelIdentity: ...

    def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        """Generate one completion, a step per token. Closing the generator cancels the work.

        Raises:
            TaskRefused: if the prompt or the sampling cannot be served.
            EngineUnavailable: if the engine cannot be reached or failed.
        """
        ...

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        """Score several completions, batched. Raises as :meth:`generate` does."""
        ...

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        """Score several completions, batched, and replay the sampler. Raises as :meth:`generate` does.

        An engine that can only score does it with
        :func:`targon.engines.replay_by_score.replay_by_score`.
        """
        ...

    async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
        """The conversation as the model sees it: the chat template rendered and tokenized."""
        ...

    async def text(self, token_ids: Sequence[TokenId], stop: Sequence[str]) -> str:
        """The text of an answer (:func:`targon.protocol.text.answer_text` with this model's tokenizer)."""
        ...

    async def check(self) -> None:
        """Ask whether the engine works now.

        Raises:
            EngineUnavailable: if it doesn't.
        """
        ...

    async def aclose(self) -> None:
        """Stop the engine's work and let go of what it holds."""
        ...
