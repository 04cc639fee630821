"""Replaying the sampler with an engine that can only score: the most likely tokens, and what they bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.port import ModelIdentity, Replayed, ReplayTask, Scores, ScoreTask
from targon.protocol.errors import UnsupportedSampling
from targon.protocol.replay import Replay, replay_tokens
from targon.protocol.sampler import check_replayable
from targon.protocol.suspicions import NO_RIVALS


class Scorer(Protocol):
    """The part of an engine that is needed here."""

    @property
    def identity(self) -> ModelIdentity: ...

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]: ...


async def replay_by_score(engine: Scorer, tasks: Sequence[ReplayTask], *, top_k: int) -> list[Replayed]:
    """Replay completions over what an engine reports of its most likely tokens.

    Args:
        top_k: how many tokens to ask for per position; 0: the whole vocabulary. With fewer, positions where
            tokens that were not seen could matter are marked ``unsure``, and doubt never adds to a margin.

    Raises:
        TaskRefused: if a sampler is not replayable, or the engine refuses a task.
        EngineUnavailable: if the engine cannot be reached, or its answer does not fit what was asked.
    """
    for task in tasks:
        try:
            check_replayable(task.sampling)
        except UnsupportedSampling as error:
            raise TaskRefused(str(error)) from error
    if not tasks:
        return []
    scores = await engine.score([ScoreTask(task.messages, task.token_ids, top_k) for task in tasks])
    if len(scores) != len(tasks):
        raise EngineUnavailable(f"reference engine: got {len(scores)} scores, expected {len(tasks)}")
    vocabulary = engine.identity.vocab_size
    return [_replay(task, one, vocabulary) for task, one in zip(tasks, scores, strict=True)]


def _replay(task: ReplayTask, scores: Scores, vocabulary: int) -> Replayed:
    _check_fit(scores, len(task.token_ids), vocabulary)
    highest = scores.top_logprobs.max(axis=1)
    own = scores.claimed_logprobs
    broken = ~(np.isfinite(highest) & (own < np.inf))  # a maximum is NaN if anything is
    logprobs = np.where(broken[:, None], np.float32(-1.0), scores.top_logprobs)
    claimed = np.array(task.token_ids, dtype=np.int64)
    replayed = Replayed(
        replay=replay_tokens(
            scores.top_ids,
            logprobs,
            claimed,
            np.where(broken, np.float32(-1.0), own),
            vocab_size=vocabulary,
            sampling=task.sampling,
            run_key=task.run_key,
        ),
        claimed_logprobs=own.copy(),
        claimed_ranks=scores.claimed_ranks.copy(),
        prompt_tokens=scores.prompt_tokens,
        top_k=0 if scores.top_ids.shape[1] == vocabulary else scores.top_ids.shape[1],
    )
    blank(replayed.replay, replayed.claimed_logprobs, replayed.claimed_ranks, broken)
    return replayed


def _check_fit(scores: Scores, positions: int, vocabulary: int) -> None:
    shape = scores.top_ids.shape
    for what, got in (
        ("top_logprobs", scores.top_logprobs.shape == shape),
        ("top_ids", len(shape) == 2 and shape[0] == positions and shape[1] >= 1),
        ("claimed_logprobs", scores.claimed_logprobs.shape == (positions,)),
        ("claimed_ranks", scores.claimed_ranks.shape == (positions,)),
    ):
        if not got:
            raise EngineUnavailable(
                f"reference engine: got {what} of shape {getattr(scores, what).shape}, expected one row for "
                f"each of {positions} tokens"
            )
    if scores.top_ids.min() < 0 or scores.top_ids.max() >= vocabulary:
        raise EngineUnavailable(
            f"reference engine: got token ids from {scores.top_ids.min()} to {scores.top_ids.max()}, expected "
            f"them below the vocabulary's {vocabulary}"
        )


def blank(
    replay: Replay, logprobs: NDArray[np.float32], ranks: NDArray[np.int32], broken: NDArray[np.bool_]
) -> None:
    """Make the positions whose logits were not numbers say so: NaN, and -1 where there is none."""
    replay.best_ids[broken] = -1
    ranks[broken] = -1
    for values in (replay.gaps, replay.margins, replay.tail_mass, logprobs):
        values[broken] = np.nan
    for flags in (replay.among, replay.on_cut, replay.in_tail, replay.claimed_rivals):
        flags[broken] = 0
    replay.rivals[broken] = NO_RIVALS
    replay.unsure[broken] = True
