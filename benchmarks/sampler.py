"""The sampler targon/1: time per position over a whole vocabulary, plain, pruned and compiled."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.row import Row
from targon.engines import compiled_sampler
from targon.protocol import Sampling, choose, replay_tokens
from targon.protocol.sampler import all_words, gumbel_of, scaled

VOCAB = 50_000
SPREAD = 3.0
"""Standard deviation of the logits; the most likely token stands 14 above their mean, as in real models."""


def run(quick: bool) -> list[Row]:
    repeats = 20 if quick else 200
    logits = (np.random.default_rng(1).normal(size=VOCAB) * SPREAD).astype(np.float32)
    logits[1234] = 14.0
    drawn = _sampling(0.8)
    note = f"vocabulary {VOCAB:,}, T = 0.8, top-p 1"
    rows = [
        _row("plain numpy", lambda at: _plain(logits, drawn, 7, at), repeats, "<= 1500 µs", note),
        _row("pruned numpy", lambda at: choose(logits, drawn, 7, at), repeats, "<= 1500 µs", note),
    ]
    if compiled_sampler.COMPILED:
        fast = compiled_sampler.choose_fast
        rows.append(_row("compiled", lambda at: fast(logits, drawn, 7, at), repeats, "<= 300 µs", note))
    for name, cut in (("top-p 0.95", _sampling(0.8, top_p=0.95)), ("top-k 50", _sampling(0.8, top_k=50))):
        cut_note = f"vocabulary {VOCAB:,}, T = 0.8, {name}"
        rows.append(_row(f"numpy, {name}", _chooser(logits, cut), repeats, "", cut_note))
    rows.append(_row("replay, whole vocabulary", _replayer(logits, VOCAB), repeats, "", note))
    rows.append(_row("replay, 100 most likely tokens", _replayer(logits, 100), repeats, "", note))
    return rows


def _sampling(temperature: float, **fields: float) -> Sampling:
    return Sampling.from_json({"seed": "0" * 16, "max_tokens": 1, "temperature": temperature} | fields)


def _plain(logits: np.ndarray, drawn: Sampling, run_key: int, position: int) -> int:
    """The rule as it stands: noise for every token, then the best."""
    noise = gumbel_of(all_words(run_key, position, drawn.choice, logits.size))
    return int(np.argmax(scaled(logits, drawn.temperature) + noise))


def _chooser(logits: np.ndarray, drawn: Sampling) -> Callable[[int], object]:
    return lambda position: choose(logits, drawn, 7, position)


def _replayer(logits: np.ndarray, seen: int) -> Callable[[int], object]:
    logprobs = (logits - np.log(np.exp(logits.astype(np.float64)).sum())).astype(np.float32)
    ids = np.arange(VOCAB)[None] if seen == VOCAB else np.argsort(-logprobs, kind="stable")[None, :seen]
    claimed = np.array([1234])

    def replay_one(position: int) -> object:
        return replay_tokens(
            ids,
            logprobs[ids],
            claimed,
            logprobs[claimed],
            vocab_size=VOCAB,
            sampling=_sampling(0.8),
            run_key=7,
            first_position=position,
        )

    return replay_one


def _row(name: str, draw: Callable[[int], object], repeats: int, target: str, note: str) -> Row:
    draw(0)  # compiles, and warms the caches
    times = []
    for position in range(repeats):
        began = time.perf_counter()
        draw(position)
        times.append(time.perf_counter() - began)
    return Row(f"sampler, {name}", float(np.median(times)) * 1e6, "µs/position", target, note)
