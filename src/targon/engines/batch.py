"""The sequences that are decoded together, and one turn of work on them. Blocking; no locks, no clock.

A turn brings in new sequences (prefill), then decodes one token for every sequence. A sequence's last
prompt token is not prefilled but decoded like any other, so that its first token needs no path of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from targon.engines.kv_cache import RowCache
from targon.engines.model_runner import FORWARD_TOKENS, ModelRunner
from targon.protocol.messages import Sampling
from targon.protocol.primitives import TokenId

PREFILL_TOKENS = FORWARD_TOKENS // 2
"""Most prompt tokens run between two decoding steps, so that a long prompt doesn't stall the others."""


class ChooseBatch(Protocol):
    """The sampler over a batch of logits, (batch, vocabulary) float32."""

    def __call__(
        self, logits: NDArray[np.float32], draws: Sequence[tuple[Sampling, int, int]], /
    ) -> Iterable[int]: ...


@dataclass(eq=False, slots=True)
class Decoding:
    """One completion in the making."""

    prompt: tuple[TokenId, ...]
    sampling: Sampling
    run_key: int
    generated: int = 0
    """Tokens generated so far: the sampler's position of the next one."""
    pending: TokenId = field(init=False)
    """The token that the next decoding step feeds to the model."""

    def __post_init__(self) -> None:
        self.pending = self.prompt[-1]

    @property
    def cached(self) -> int:
        """Tokens whose keys and values are in the cache."""
        return len(self.prompt) - 1 + self.generated


@dataclass(frozen=True, slots=True)
class Token:
    """A token that a turn produced."""

    decoding: Decoding
    token_id: TokenId
    logprob: float


class Batch:
    """Decodes several sequences at once; the first rows of one cache, without gaps."""

    def __init__(self, runner: ModelRunner, choose: ChooseBatch, max_batch: int) -> None:
        self._runner = runner
        self._choose = choose
        self._cache = RowCache(max_batch)
        self._rows: list[Decoding] = []
        self._joining: deque[tuple[Decoding, RowCache]] = deque()
        self._prefilled = 0  # tokens of the first joining sequence that its cache holds

    def join(self, sequence: Decoding) -> None:
        """Let a sequence take part from its prefill on."""
        self._joining.append((sequence, RowCache(1)))

    def leave(self, sequence: Decoding) -> None:
        """Take a sequence out, finished or not."""
        if sequence in self._rows:
            row, last = self._rows.index(sequence), self._rows.pop()
            if last is not sequence:
                self._rows[row] = last
                self._cache.move(len(self._rows), row, last.cached)
        else:
            if self._joining[0][0] is sequence:
                self._prefilled = 0
            self._joining = deque(entry for entry in self._joining if entry[0] is not sequence)
        if not self._rows:
            self._cache.clear()

    def turn(self) -> list[Token]:
        """Prefill for a while, then decode one token for each sequence that is ready."""
        self._prefill()
        return self._decode() if self._rows else []

    def _prefill(self) -> None:
        budget = PREFILL_TOKENS - self._prefill_together()
        while self._joining and budget > 0:
            sequence, cache = self._joining[0]
            part = sequence.prompt[self._prefilled : min(len(sequence.prompt) - 1, self._prefilled + budget)]
            if part:
                self._runner.prefill(cache, part, self._prefilled)
            self._prefilled += len(part)
            budget -= len(part)
            if self._prefilled == sequence.cached:
                self._joining.popleft()
                self._prefilled = 0
                self._cache.adopt(len(self._rows), cache, sequence.cached)
                self._rows.append(sequence)

    def _prefill_together(self) -> int:
        """Prefill short prompts that join at the same time in one forward pass; returns its tokens."""
        group: list[Decoding] = []
        width = 0
        for sequence, _ in self._joining if self._prefilled == 0 else ():
            wider = max(width, sequence.cached)
            if wider * (len(group) + 1) > PREFILL_TOKENS:
                break
            group.append(sequence)
            width = wider
        if len(group) < 2 or width == 0:
            return 0
        cache = RowCache(len(group))
        self._runner.prefill_together(cache, [sequence.prompt[:-1] for sequence in group])
        for source, sequence in enumerate(group):
            self._joining.popleft()
            self._cache.adopt(len(self._rows), cache, sequence.cached, source)
            self._rows.append(sequence)
        return width * len(group)

    def _decode(self) -> list[Token]:
        rows = list(self._rows)
        logits = self._runner.decode(
            self._cache, [sequence.pending for sequence in rows], [sequence.cached for sequence in rows]
        )
        draws = [(sequence.sampling, sequence.run_key, sequence.generated) for sequence in rows]
        chosen = [TokenId(int(id_)) for id_ in self._choose(logits.numpy(), draws)]
        own = logits.gather(1, torch.tensor(chosen)[:, None])[:, 0]
        logprobs = (own - logits.logsumexp(dim=1)).tolist()
        for sequence, token_id in zip(rows, chosen, strict=True):
            sequence.pending = token_id
            sequence.generated += 1
        return [Token(*found) for found in zip(rows, chosen, logprobs, strict=True)]
