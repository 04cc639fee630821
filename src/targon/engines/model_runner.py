"""A causal language model of transformers, reduced to the four things an engine asks of it.

Everything here blocks and is used from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from targon.engines.compiled_replay import joined, replay_logits
from targon.engines.errors import EngineUnavailable
from targon.engines.kv_cache import RowCache
from targon.engines.port import Replayed, Scores
from targon.engines.variants import apply_variant
from targon.protocol.messages import Sampling
from targon.protocol.primitives import TokenId

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FORWARD_TOKENS = 1024
"""Most tokens, padding included, in one forward pass: bounds memory, and how long decoding has to wait."""

_HEAD_POSITIONS = 128
"""Most positions whose logits over the whole vocabulary exist at once (25 MB for a vocabulary of 49,152)."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One sequence to score: ``tokens`` of which the last ``claimed`` are the claimed ones."""

    tokens: tuple[TokenId, ...]
    claimed: int
    top_k: int


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One sequence to replay: ``tokens`` of which the last ``claimed`` are the claimed ones."""

    tokens: tuple[TokenId, ...]
    claimed: int
    sampling: Sampling
    run_key: int


class ModelRunner:
    """A loaded model."""

    def __init__(self, folder: Path, *, dtype: str, variant: str | None) -> None:
        """Load a model.

        Raises:
            EngineUnavailable: if the folder holds no model of a kind that can be run here.
            ValueError: if there is no such dtype or variant.
        """
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        if dtype not in DTYPES:
            raise ValueError(f"dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}")
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=DTYPES[dtype], attn_implementation="sdpa", local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise EngineUnavailable(f"model folder {folder}: transformers cannot load it: {error}") from error
        model.eval()
        if variant is not None:
            apply_variant(model, variant)
        self.config: Any = model.config
        self.generation_config: Any = model.generation_config
        self._body = model.base_model
        self._head = model.get_output_embeddings()
        self._dtype = DTYPES[dtype]
        self._check_that_it_can_be_run_in_parts(model)

    @torch.inference_mode()
    def prefill(self, cache: RowCache, tokens: Sequence[TokenId], start: int) -> torch.Tensor:
        """Run tokens at positions ``start …`` of row 0; returns hidden states (tokens, width)."""
        count = len(tokens)
        cache.write_span(0, start, count)
        positions = torch.arange(start, start + count)
        seen = torch.arange(start + count)[None, :] <= positions[:, None]
        return self._forward([list(tokens)], cache, positions[None, :], seen[None, None])[0]

    @torch.inference_mode()
    def prefill_together(self, cache: RowCache, prompts: Sequence[Sequence[TokenId]]) -> None:
        """Run several prompts in one forward pass, one per row from row 0 on.

        Shorter ones are padded to the right, where causal attention keeps padding from being seen.
        """
        width = max(map(len, prompts))
        cache.write_starts(len(prompts), width)
        padded = [[*tokens, *([TokenId(0)] * (width - len(tokens)))] for tokens in prompts]
        positions = torch.arange(width)
        seen = positions[None, :] <= positions[:, None]
        self._forward(padded, cache, positions[None, :], seen[None, None])

    @torch.inference_mode()
    def decode(self, cache: RowCache, tokens: Sequence[TokenId], lengths: Sequence[int]) -> torch.Tensor:
        """Run one token for each of the first rows, which hold ``lengths`` tokens so far.

        Returns:
            Logits (rows, vocabulary) float32.
        """
        positions = torch.tensor(lengths)
        cache.write_next(positions)
        seen = torch.arange(int(positions.max()) + 1)[None, :] <= positions[:, None]
        hidden = self._forward([[token] for token in tokens], cache, positions[:, None], seen[:, None, None])
        return self._logits(hidden[:, 0])

    @torch.inference_mode()
    def score(self, rows: Sequence[ScoreRow]) -> list[Scores]:
        """Score sequences in one forward pass; a single one may be longer than ``FORWARD_TOKENS``."""
        return [self._score_row(row, hidden) for row, hidden in zip(rows, self._hidden(rows), strict=True)]

    @torch.inference_mode()
    def replay(self, rows: Sequence[ReplayRow]) -> list[Replayed]:
        """Replay sequences in one forward pass; a single one may be longer than ``FORWARD_TOKENS``."""
        return [self._replay_row(row, hidden) for row, hidden in zip(rows, self._hidden(rows), strict=True)]

    def _hidden(self, rows: Sequence[ScoreRow | ReplayRow]) -> list[torch.Tensor]:
        """Per row the hidden states (claimed tokens, width) that predict its claimed tokens."""
        inputs = [row.tokens[:-1] for row in rows]
        if len(rows) == 1 and len(inputs[0]) > FORWARD_TOKENS:
            return [self._prefill_in_chunks(inputs[0])[-rows[0].claimed :]]
        width = max(map(len, inputs))
        padded = [[*ids, *([0] * (width - len(ids)))] for ids in inputs]
        # padding stands to the right, where causal attention keeps it from being seen: no mask is needed
        hidden = self._body(input_ids=torch.tensor(padded), use_cache=False).last_hidden_state
        return [
            hidden[index, len(ids) - row.claimed : len(ids)]
            for index, (row, ids) in enumerate(zip(rows, inputs, strict=True))
        ]

    def _prefill_in_chunks(self, tokens: Sequence[TokenId]) -> torch.Tensor:
        cache = RowCache(1)
        parts = [
            self.prefill(cache, tokens[start : start + FORWARD_TOKENS], start)
            for start in range(0, len(tokens), FORWARD_TOKENS)
        ]
        return torch.cat(parts)

    def _score_row(self, row: ScoreRow, hidden: torch.Tensor) -> Scores:
        """``hidden``: (claimed tokens, width)."""
        claimed = torch.tensor(row.tokens[-row.claimed :])
        parts = [
            _scores_of(self._logits(hidden[start : start + _HEAD_POSITIONS]), chosen, row.top_k)
            for start, chosen in zip(
                range(0, row.claimed, _HEAD_POSITIONS), claimed.split(_HEAD_POSITIONS), strict=True
            )
        ]
        ids, logprobs, own, ranks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if row.top_k == 0:
            vocabulary = np.arange(logprobs.shape[1], dtype=np.int32)
            ids = np.broadcast_to(vocabulary, logprobs.shape)
        return Scores(ids, logprobs, own, ranks, prompt_tokens=len(row.tokens) - row.claimed)

    def _replay_row(self, row: ReplayRow, hidden: torch.Tensor) -> Replayed:
        """``hidden``: (claimed tokens, width)."""
        claimed = np.array(row.tokens[-row.claimed :], np.int64)
        parts = [
            replay_logits(
                self._logits(hidden[start : start + _HEAD_POSITIONS]).numpy(),
                claimed[start : start + _HEAD_POSITIONS],
                row.sampling,
                row.run_key,
                start,
                threads=torch.get_num_threads(),
            )
            for start in range(0, row.claimed, _HEAD_POSITIONS)
        ]
        return Replayed(
            replay=joined([part.replay for part in parts]),
            claimed_logprobs=np.concatenate([part.claimed_logprobs for part in parts]),
            claimed_ranks=np.concatenate([part.claimed_ranks for part in parts]),
            prompt_tokens=len(row.tokens) - row.claimed,
        )

    def _forward(
        self, tokens: list[list[TokenId]], cache: RowCache, positions: torch.Tensor, seen: torch.Tensor
    ) -> torch.Tensor:
        mask = torch.zeros(seen.shape, dtype=self._dtype).masked_fill_(~seen, -torch.inf)
        output = self._body(
            input_ids=torch.tensor(tokens),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._head(hidden).float()
        return logits

    @torch.inference_mode()
    def _check_that_it_can_be_run_in_parts(self, model: Any) -> None:  # noqa: ANN401
        """Compare body, cache and head, run apart as here, with the model's own forward pass."""
        sliding = getattr(self.config, "sliding_window", None)
        kinds = set(getattr(self.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or sliding:
            raise EngineUnavailable(
                f"model {self.config.model_type}: got attention of kind {sorted(kinds)}, sliding window "
                f"{sliding}; expected full attention in every layer; serve this model with another engine"
            )
        tolerance = 1e-3 if self._dtype == torch.float32 else 0.05
        # Of three, the middle one: models that round to bfloat16 can be thrown by a few tokens, on some processors
        # more than on others, and by those that they never saw while they were trained most of all.
        worst = sorted(self._difference_in_parts(model, probe) for probe in self._probes())[1]
        if not worst <= tolerance:
            raise EngineUnavailable(
                f"model {self.config.model_type}: its logits, run in parts, differ from its own forward pass "
                f"by {worst:.3g} of their size, expected at most {tolerance:g}; use another engine for it"
            )

    def _probes(self) -> list[list[TokenId]]:
        """Three times eight tokens from all over the vocabulary."""
        size = self._head.weight.shape[0]
        ids = [TokenId(size * place // 25) for place in range(1, 25)]
        return [ids[start::3] for start in range(3)]

    def _difference_in_parts(self, model: Any, tokens: list[TokenId]) -> float:  # noqa: ANN401
        """How far the last position's logits are off when run in parts, relative to the largest of them."""
        expected = model(input_ids=torch.tensor([tokens])).logits[0, -1].float()
        cache = RowCache(1)
        self.prefill(cache, tokens[:4], 0)
        self.prefill(cache, tokens[4:7], 4)
        got = self.decode(cache, tokens[7:], [7])[0]
        return float((got - expected).abs().max() / expected.abs().max().clamp_min(1.0))


def _scores_of(
    logits: torch.Tensor, claimed: torch.Tensor, top_k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """``logits``: (positions, vocabulary) float32; ``claimed``: (positions,). Equals are in order of id."""
    own = logits.gather(1, claimed[:, None])
    ranks = (logits > own).sum(dim=1, dtype=torch.int32).numpy()
    norm = logits.logsumexp(dim=1, keepdim=True)
    own_logprobs = (own - norm)[:, 0].numpy()
    if top_k == 0:
        return np.zeros((len(ranks), 0), np.int32), (logits - norm).numpy(), own_logprobs, ranks
    top = torch.topk(logits, top_k, dim=1)
    ids, logprobs = top.indices.to(torch.int32).numpy(), (top.values - norm).numpy()
    order = np.lexsort((ids, -logprobs), axis=1)
    return (
        np.take_along_axis(ids, order, axis=1),
        np.take_along_axis(logprobs, order, axis=1),
        own_logprobs,
        ranks,
    )
