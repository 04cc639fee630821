"""What every adapter refuses, in the same words: tasks that the model it runs could not serve."""

from __future__ import annotations

from collections.abc import Sequence

from targon.engines.errors import TaskRefused
from targon.engines.port import GenerateTask, ModelIdentity, ReplayTask, ScoreTask
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.messages import Dialect
from targon.protocol.primitives import TokenId
from targon.protocol.sampler import check_draw, check_sampling


def check_sampler(task: GenerateTask | ReplayTask, dialects: Sequence[Dialect]) -> None:
    """Check that a task's sampler is one of those that can be had, with parameters of its own.

    Raises:
        TaskRefused: naming the parameter.
    """
    sampling = task.sampling
    try:
        check_sampling(sampling)
        if sampling.dialect not in dialects:
            raise UnsupportedSampling("dialect", sampling.dialect, " or ".join(map(repr, dialects)))
        check_draw(task.run_key, sampling.max_tokens, sampling.choice)
    except (UnsupportedSampling, ValueError) as error:
        raise TaskRefused(str(error)) from error


def check_claim(task: ScoreTask | ReplayTask, identity: ModelIdentity) -> None:
    """Check that there are tokens to score, all of the vocabulary. Raises ``TaskRefused``."""
    if not task.token_ids:
        raise TaskRefused("token_ids: got none, expected at least one token to score")
    check_token_ids(task.token_ids, identity)


def check_top_k(task: ScoreTask, identity: ModelIdentity) -> None:
    """Check that a vocabulary has so many tokens. Raises ``TaskRefused``."""
    if not 0 <= task.top_k <= identity.vocab_size:
        raise TaskRefused(f"top_k: got {task.top_k}, expected 0 (all) to {identity.vocab_size}")


def check_token_ids(token_ids: Sequence[TokenId], identity: ModelIdentity) -> None:
    """Check that the vocabulary has all of them. Raises ``TaskRefused``."""
    unknown = next((id_ for id_ in token_ids if not 0 <= id_ < identity.vocab_size), None)
    if unknown is not None:
        raise TaskRefused(f"token id: got {unknown}, expected one from 0 to {identity.vocab_size - 1}")


def check_length(prompt: int, more: int, what: str, identity: ModelIdentity) -> None:
    """Check that a prompt and so many more tokens fit the context. Raises ``TaskRefused``.

    Args:
        what: names those tokens.
    """
    if prompt + more > identity.context_length:
        raise TaskRefused(
            f"context length: got {prompt} prompt tokens and {more} {what}, together {prompt + more}, "
            f"expected at most {identity.context_length}"
        )
