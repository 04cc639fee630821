"""The replayed sampler over whole vocabularies: compiled where numba is installed, else plain.

One pass over a position's logits, while they are in the cache, gives all that :class:`Replayed` holds. As
in :mod:`targon.engines.compiled_sampler`, whatever rounding could turn is left to the plain form
(:func:`targon.protocol.replay.replay_tokens`): the best two tokens are taken from here only if each beats
the next by far more than two logarithms can differ, a cut only if no running sum comes near its goal. Values
are then computed as the plain form computes them; ``tail_mass`` agrees with it to 1e-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targon.engines.compiled_kernels import replay_rows
from targon.engines.replay_by_score import blank
from targon.protocol.cut_edge import CUT_SLACK, slackened
from targon.protocol.messages import Sampling
from targon.protocol.philox import WORD_MASK
from targon.protocol.replay import MARGIN_CLIP, Replay, replay_tokens
from targon.protocol.sampler import check_draw, check_replayable, gumbel_of, scaled
from targon.protocol.suspicions import LEAD_EDGES, NO_RIVALS, REACH, suspected_temperatures

_EDGES = np.array(LEAD_EDGES)
_ROWS_PER_THREAD = 4
"""Fewer positions than this are not worth another thread."""


@dataclass(frozen=True, slots=True)
class ReplayedLogits:
    """What logits say of claimed tokens, per position; see :class:`targon.engines.port.Replayed`."""

    replay: Replay
    claimed_logprobs: NDArray[np.float32]
    claimed_ranks: NDArray[np.int32]


def replay_logits(
    logits: NDArray[np.float32],
    claimed: NDArray[np.int64],
    sampling: Sampling,
    run_key: int,
    first_position: int = 0,
    *,
    threads: int = 1,
) -> ReplayedLogits:
    """Replay the sampler over logits of a whole vocabulary.

    Args:
        logits: ``(positions, vocab) float32``; a position whose logits hold NaN or +∞, or nothing but −∞,
            comes out as NaN.
        claimed: ``(positions,) int64``, token ids below ``vocab``.
        sampling: dialect ``targon/1`` or ``greedy``.
        run_key: 64 bits.
        first_position: the position of the first row.
        threads: how many threads share the positions.

    Raises:
        UnsupportedSampling: if the parameters are not this sampler's.
    """
    check_replayable(sampling)
    check_draw(run_key, first_position + len(claimed), sampling.choice)
    made = _Rows(logits, claimed, sampling, run_key, first_position)
    parts = max(1, min(threads, len(claimed) // _ROWS_PER_THREAD))
    bounds = [len(claimed) * part // parts for part in range(parts + 1)]
    if parts == 1:
        made.work(0, len(claimed))
    else:
        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(made.work, bounds[:-1], bounds[1:]))
    return made.finish()


def joined(parts: Sequence[Replay]) -> Replay:
    """Replays of consecutive positions, as one."""
    return Replay(*(np.concatenate([getattr(part, name) for part in parts]) for name in Replay.__slots__))


class _Rows:
    """The positions of one call; :meth:`work` may run for disjoint parts of them at once."""

    def __init__(
        self,
        logits: NDArray[np.float32],
        claimed: NDArray[np.int64],
        sampling: Sampling,
        run_key: int,
        first_position: int,
    ) -> None:
        count = len(claimed)
        self._logits = np.ascontiguousarray(logits, dtype=np.float32)
        self._claimed = np.ascontiguousarray(claimed, dtype=np.int64)
        self._sampling, self._run_key, self._first = sampling, run_key, first_position
        narrow, wide = slackened(sampling)
        self._cuts = (sampling.temperature, sampling.top_p, narrow, wide, CUT_SLACK, sampling.top_k)
        self._others = np.array(suspected_temperatures(sampling.temperature))
        self._peaks = np.zeros(count, np.int64)
        self._ids = np.zeros((count, 3), np.int64)
        self._words = np.zeros((count, 3), np.uint64)
        self._flags = np.zeros((count, 4), np.bool_)
        self._totals = np.ones(count, np.float64)
        self._tails = np.full(count, np.nan)
        self._rivals = np.full(count, NO_RIVALS, np.uint32)
        self._claimed_rivals = np.zeros(count, np.uint8)
        self._ranks = np.full(count, -1, np.int32)

    def work(self, start: int, stop: int) -> None:
        rows = self._logits[start:stop]
        self._peaks[start:stop] = rows.argmax(axis=1)  # the first NaN, if there is one
        for place, claim in enumerate(self._claimed[start:stop]):
            self._ranks[start + place] = np.count_nonzero(rows[place] > rows[place, claim])
        replay_rows(
            rows,
            self._claimed[start:stop],
            self._peaks[start:stop],
            self._cuts,
            self._others,
            _EDGES,
            REACH,
            (self._first + start, self._sampling.choice, self._run_key & WORD_MASK, self._run_key >> 32),
            self._ids[start:stop],
            self._words[start:stop],
            self._flags[start:stop],
            self._totals[start:stop],
            self._tails[start:stop],
            self._rivals[start:stop],
            self._claimed_rivals[start:stop],
        )

    def finish(self) -> ReplayedLogits:
        rows = np.arange(len(self._claimed))
        peaks = self._logits[rows, self._peaks].astype(np.float64)
        broken = ~np.isfinite(peaks)
        own = self._logits[rows, self._claimed]
        with np.errstate(invalid="ignore"):
            logprobs = (own - peaks - np.log(self._totals)).astype(np.float32)
            values = scaled(np.take_along_axis(self._logits, self._ids, axis=1), self._sampling.temperature)
            if self._sampling.temperature > 0.0:
                values = values + gumbel_of(self._words)
            among = self._flags[:, 0] & (own > -np.inf)
            gaps = np.minimum(values[:, 0] - values[:, 1], MARGIN_CLIP)
            gaps[self._ids[:, 0] == self._ids[:, 1]] = MARGIN_CLIP  # alone
            margins = np.where(among, np.minimum(values[:, 0] - values[:, 2], MARGIN_CLIP), MARGIN_CLIP)
        replay = Replay(
            best_ids=self._ids[:, 0],
            gaps=gaps,
            margins=margins,
            among=among,
            unsure=np.zeros_like(broken),
            on_cut=self._flags[:, 3],
            tail_mass=self._tails,
            in_tail=self._flags[:, 1],
            rivals=self._rivals,
            claimed_rivals=self._claimed_rivals,
        )
        for row in np.flatnonzero(self._flags[:, 2] & ~broken):
            self._replay_plainly(int(row), replay)
        blank(replay, logprobs, self._ranks, broken)
        return ReplayedLogits(replay, logprobs, self._ranks)

    def _replay_plainly(self, row: int, into: Replay) -> None:
        vocab = self._logits.shape[1]
        plain = replay_tokens(
            np.arange(vocab)[None],
            self._logits[row : row + 1],
            self._claimed[row : row + 1],
            np.zeros(1, np.float32),
            vocab_size=vocab,
            sampling=self._sampling,
            run_key=self._run_key,
            first_position=self._first + row,
        )
        for name in Replay.__slots__:
            getattr(into, name)[row] = getattr(plain, name)[0]
