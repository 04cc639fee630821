"""How many tokens it takes: streams of a prover's answers, drawn again and again from those that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from targon.protocol.messages import Message
from targon.verification import Bets, EvidenceState, Observations, advance, trace

Answer: TypeAlias = tuple[Observations, Bets]

MOST_TOKENS: Final = 20_000
"""Where a stream ends that leads to no conviction."""

GROWTH_STREAMS: Final = 60
"""Streams of which the growth of the evidence is drawn."""

ENOUGH: Final = 20.0
"""ln e beyond which a stream's growth isn't followed."""


class Spread(Message):
    """Over many streams."""

    convicted: Annotated[float, Field(ge=0.0, le=1.0)]
    """The share that led to conviction within ``MOST_TOKENS``."""
    median: Annotated[int, Field(ge=1)] | None
    p95: Annotated[int, Field(ge=1)] | None
    """Tokens to conviction; None: more than ``MOST_TOKENS``."""


class Growth(Message):
    """ln e after so many tokens: median and the middle 80% of streams."""

    tokens: tuple[int, ...]
    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """What a prover's next answer is drawn from: with probability ``share`` a cheat's, else an honest one.

    A cheat's answers are drawn again and again. That won't do for honest ones: what a few of them have by chance
    (a token too many that is unlikely, say) would come back each time, as no honest prover's does, and add up.
    """

    cheat: Sequence[Answer]
    honest: Sequence[Answer] = ()
    share: float = 1.0
    once: bool = False
    """Whether each answer is drawn once, so that a stream is all of them in another order."""

    def limit(self, most: int) -> int:
        """The most tokens of a stream."""
        return min(most, sum(answer.positions for answer, _ in self.cheat)) if self.once else most

    def draw(self, rng: np.random.Generator) -> Iterator[Answer]:
        """Answers, without end unless each is drawn once. There must be some of each kind that is drawn from."""
        if self.once:
            yield from (self.cheat[place] for place in rng.permutation(len(self.cheat)))
            return
        while True:
            kind = self.cheat if self.share == 1.0 or rng.random() < self.share else self.honest
            yield kind[int(rng.integers(len(kind)))]


def tokens_to_conviction(
    pool: Pool, rng: np.random.Generator, streams: int, most: int = MOST_TOKENS
) -> Spread:
    """Let streams of answers run until conviction, or for so many tokens, or until no answer is left."""
    took = np.array([_one_stream(pool, rng, most) for _ in range(streams)])
    return spread_of(took)


def spread_of(took: NDArray[np.float64]) -> Spread:
    """``took``: tokens to conviction of each stream, infinite where there was none."""
    median, p95 = np.quantile(took, (0.5, 0.95), method="inverted_cdf").tolist()
    return Spread(
        convicted=float(np.isfinite(took).mean()),
        median=int(median) if np.isfinite(median) else None,
        p95=int(p95) if np.isfinite(p95) else None,
    )


def _one_stream(pool: Pool, rng: np.random.Generator, most: int) -> float:
    state = EvidenceState()
    for observations, bets in pool.draw(rng):
        state = advance(state, observations, bets)
        if state.convicted_at is not None:
            return float(state.convicted_at) if state.convicted_at <= most else np.inf
        if state.tokens >= most:
            break
    return np.inf


def growth(
    pool: Pool, rng: np.random.Generator, streams: int = GROWTH_STREAMS, most: int = MOST_TOKENS
) -> Growth:
    """How the evidence grows, at numbers of tokens that grow by a tenth."""
    grid = np.unique(np.geomspace(1, pool.limit(most), 90).astype(np.int64))
    paths = np.stack([_path(pool, rng, grid) for _ in range(streams)])
    low, median, high = np.quantile(paths, (0.1, 0.5, 0.9), axis=0).round(3).tolist()
    return Growth(tokens=tuple(grid.tolist()), low=tuple(low), median=tuple(median), high=tuple(high))


def _path(pool: Pool, rng: np.random.Generator, grid: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(len(grid),)``: ln e of one stream at these numbers of tokens, at most ``ENOUGH``; 0 before any is sure."""
    values = np.full(grid.size, ENOUGH)
    state = EvidenceState()
    for observations, bets in pool.draw(rng):
        within = (grid > state.tokens) & (grid <= state.tokens + observations.positions)
        if within.any():
            steps = np.concatenate([[state.log_e], trace(state, observations, bets)])
            sure = np.cumsum(~observations.unsure)
            values[within] = steps[sure[grid[within] - state.tokens - 1]]
        state = advance(state, observations, bets)
        if state.tokens >= grid[-1] or state.log_e >= ENOUGH:
            break
    return values.clip(max=ENOUGH)


def run_through(answers: Sequence[Answer]) -> EvidenceState:
    """The evidence after all answers, in their order."""
    state = EvidenceState()
    for observations, bets in answers:
        state = advance(state, observations, bets)
    return state
