"""The sampler ``targon/1`` over torch tensors: what an engine's plugin calls once per step for its whole batch.

On CPU the compiled sampler reads the tensor's own memory. Elsewhere the rules are tensor operations on the
device, all rows at once, and nothing waits for it: neither how many candidates a cut leaves nor which token
is drawn is known to the host. That form follows :func:`targon.protocol.sampler.choose` step by step in
float64; only where rounding decides (a running sum that meets its goal, two best tokens within some 1e-12)
may the device's own logarithm, or order of adding, turn it.

Logits that :func:`targon.protocol.sampler.choose` refuses (NaN, +∞, or nothing but −∞) give their argmax in
both forms: broken numbers are one request's trouble, and an exception here would end everyone's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from targon.engines.compiled_sampler import choose_fast
from targon.engines.sampler_arguments import Draw
from targon.protocol.errors import InvalidLogits
from targon.protocol.philox import KEY_INCREMENTS, MULTIPLIERS, ROUNDS, WORD_MASK

ELEMENTS_AT_ONCE = 1 << 23
"""Logits worked on at once on a device: a few float64 tensors of 64 MiB are alive, however large the batch."""

_ALL = 1 << 62
"""A top-k beyond every vocabulary."""


def row_sampler(draws: Sequence[Draw], device: torch.device | str) -> CompiledRows | DeviceRows:
    """The sampler of some rows of logits, laid out once for as long as the rows stay the same.

    Args:
        draws: one per row.
        device: where the logits will be.
    """
    device = torch.device(device)
    return CompiledRows(draws) if device.type == "cpu" else DeviceRows(draws, device)


def warm_up(device: torch.device | str) -> None:
    """Draw a little of everything: the first time, code is compiled, which no request should wait for."""
    draws = (Draw(0, 1.0), Draw(0, 1.0, top_p=0.5), Draw(0, 1.0, top_k=2), Draw(0, 0.0))
    logits = torch.linspace(-1.0, 1.0, 64, device=device).repeat(len(draws), 1)
    row_sampler(draws, device).choose(logits, [0] * len(draws))


def sent(values: Sequence[object], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A small tensor on a device, without waiting for what the device is at."""
    pinned = device.type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


class CompiledRows:
    """Rows on the CPU, drawn one after another by compiled code."""

    def __init__(self, draws: Sequence[Draw]) -> None:
        self._draws = [(draw.sampling(), draw.run_key) for draw in draws]

    def choose(self, logits: torch.Tensor, positions: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """As :meth:`DeviceRows.choose`."""
        values = logits.detach().numpy()  # the same memory
        at = positions.tolist() if isinstance(positions, torch.Tensor) else positions
        chosen = []
        for row, draw, position in zip(values, self._draws, at, strict=True):
            try:
                chosen.append(int(choose_fast(row, *draw, position)))
            except InvalidLogits:
                chosen.append(int(row.argmax()))
        return torch.tensor(chosen, dtype=torch.int64)


class DeviceRows:
    """Rows on any device, drawn together by tensor operations."""

    def __init__(self, draws: Sequence[Draw], device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._integers = self._sent(
            [
                (draw.run_key & WORD_MASK, draw.run_key >> 32, draw.choice, draw.top_k or _ALL)
                for draw in draws
            ]
        )
        self._floats = self._sent(
            [(draw.temperature or 1.0, draw.top_p if draw.top_p < 1.0 else math.inf) for draw in draws],
            torch.float64,
        )
        self._greedy = [draw.temperature == 0.0 for draw in draws]
        self._loud = self._sent([(0.0 if greedy else 1.0,) for greedy in self._greedy], torch.float64)
        self._cut = [draw.temperature > 0.0 and (draw.top_k > 0 or draw.top_p < 1.0) for draw in draws]
        self._cut_rows: dict[range, torch.Tensor] = {}

    def choose(self, logits: torch.Tensor, positions: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """The next token of each row.

        Args:
            logits: ``(rows, vocab) float32``, on the device; left as they are.
            positions: ``(rows,)``, how many tokens each answer has so far; integers of the host, or an
                integer tensor on the device.

        Returns:
            ``(rows,) int64``, on the device.
        """
        at = positions.to(torch.int64) if isinstance(positions, torch.Tensor) else self._sent(positions)
        count, vocab = logits.shape
        step = max(1, ELEMENTS_AT_ONCE // vocab)
        parts = [range(start, min(start + step, count)) for start in range(0, count, step)]
        return torch.cat([self._choose(logits[part.start : part.stop], at, part) for part in parts])

    def _choose(self, logits: torch.Tensor, positions: torch.Tensor, part: range) -> torch.Tensor:
        rows = slice(part.start, part.stop)
        if all(self._greedy[rows]):
            return logits.argmax(dim=1)
        low, high, choice, top_k = self._integers[rows].split(1, dim=1)
        temperature, top_p = self._floats[rows].split(1, dim=1)
        scores = logits.double() / temperature
        if all(self._cut[rows]):
            scores = only_kept(logits, scores, top_k, top_p)
        elif any(self._cut[rows]):
            cut = self._rows_to_cut(part)
            scores[cut] = only_kept(logits[cut], scores[cut], top_k[cut], top_p[cut])
        noise = noise_rows(low, high, choice, positions[rows, None], logits.shape[1])
        return torch.addcmul(scores, noise, self._loud[rows]).argmax(dim=1)

    def _rows_to_cut(self, part: range) -> torch.Tensor:
        if part not in self._cut_rows:
            self._cut_rows[part] = self._sent([row - part.start for row in part if self._cut[row]])
        return self._cut_rows[part]

    def _sent(self, values: Sequence[object], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return sent(values, dtype, self._device)


def only_kept(
    logits: torch.Tensor, scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Rules 2 and 3: the scores of the candidates, −∞ elsewhere.

    Args:
        logits: ``(rows, vocab) float32``, which sort faster than ``scores`` and alike.
        scores: ``(rows, vocab) float64``.
        top_k: ``(rows, 1) int64``, how many to keep.
        top_p: ``(rows, 1) float64``, the share to keep; ∞: all.
    """
    order = logits.sort(dim=1, descending=True, stable=True).indices
    ordered = scores.gather(1, order)
    rank = torch.arange(logits.shape[1], device=logits.device)
    weights = torch.where(rank < top_k, torch.exp(ordered - ordered[:, :1]), 0.0)
    goal = top_p * weights.sum(dim=1, keepdim=True)
    before = weights.cumsum(dim=1).roll(1, dims=1)
    kept = ((before < goal) & (rank < top_k)) | (rank == 0)
    return scores.masked_fill(~torch.zeros_like(kept).scatter_(1, order, kept), -math.inf)


def noise_rows(
    low: torch.Tensor, high: torch.Tensor, choice: torch.Tensor, position: torch.Tensor, vocab: int
) -> torch.Tensor:
    """Rule 4: the noise of every token, ``(rows, vocab) float64``.

    Args:
        low, high: of the run keys, ``(rows, 1) int64``, as are ``choice`` and ``position``.
    """
    c0 = torch.arange((vocab + 3) // 4, device=low.device)[None]
    c1, c2, c3 = position, choice, torch.zeros_like(low)
    for _ in range(ROUNDS):
        # a product wraps around into the sign; its two words are the same bits
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = ((right >> 32) & WORD_MASK) ^ c1 ^ low, right & WORD_MASK
        c2, c3 = ((left >> 32) & WORD_MASK) ^ c3 ^ high, left & WORD_MASK
        low, high = (low + KEY_INCREMENTS[0]) & WORD_MASK, (high + KEY_INCREMENTS[1]) & WORD_MASK
    words = torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=2).flatten(1)[:, :vocab]
    return -torch.log(-torch.log((words.double() + 0.5) * 2.0**-32))
