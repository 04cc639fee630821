"""Native work with spoofed log-probabilities: how often one recheck fails it, and after how many tokens several do.

A prover has a cheaper model write the text, and states what one bf16 prefill of the true model says of it. The
recheck compares that with an fp32 reference's: the numbers are right, so what is left is whether the tokens are as
surprising as draws from the model would be. Wealth of independent answers multiplies.

python -m benchmarks.spoofing ATTACKS       a folder in which ``targon redteam`` keeps answers
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio
import numpy as np

from targon.engines import Engine, Scores, ScoreTask, start_engine_process
from targon.verification.recheck import LOG_FAIL, TOP_K, RecheckBounds, recheck_verdict
from targon.verification.transcripts import Transcript, read_transcripts

WRITERS = ("honest-bf16", "int8", "fp8", "int4", "other-model")
"""Who wrote the text; the first is honest."""
ANSWERS = 80
TOGETHER = 16
STREAMS = 300
MOST_TOKENS = 20_000

Weighed = tuple[int, float, bool]
"""Of one answer: its tokens, ln e, and whether the recheck fails it."""


async def scored(answers: Sequence[Transcript], dtype: str, top_k: int) -> tuple[list[Scores], int]:
    """What an engine says of answers after one prefill each, and the size of its vocabulary."""
    with tempfile.TemporaryDirectory(prefix="targon-bench-") as folder:
        async with start_engine_process(Path(folder) / "engine.sock", dtype=dtype, timeout_s=600.0) as engine:
            scores = [one for group in _groups(answers) for one in await _score(engine, group, top_k)]
            return scores, engine.identity.vocab_size


async def _score(engine: Engine, answers: Sequence[Transcript], top_k: int) -> list[Scores]:
    return await engine.score([ScoreTask(one.messages, one.token_ids, top_k) for one in answers])


def _groups(answers: Sequence[Transcript]) -> list[Sequence[Transcript]]:
    return [answers[start : start + TOGETHER] for start in range(0, len(answers), TOGETHER)]


def weigh(answer: Transcript, stated: Scores, own: Scores, vocab_size: int) -> Weighed:
    """One answer, as if its request had been for native work."""
    verdict = recheck_verdict(
        stated.claimed_logprobs.astype(np.float64),
        own,
        np.array(answer.token_ids, np.int64),
        answer.sampling,
        vocab_size,
        RecheckBounds(),
    )
    return len(answer.token_ids), float(verdict.evidence["ln_e"]), verdict.outcome == "fail"


def tokens_to_fail(answers: Sequence[Weighed], rng: random.Random) -> float:
    """Tokens of answers drawn with replacement until the product of their e reaches the bound; ∞: not in time."""
    log_e, tokens = 0.0, 0
    while tokens < MOST_TOKENS:
        count, gain, _ = rng.choice(answers)
        log_e, tokens = log_e + gain, tokens + count
        if log_e >= LOG_FAIL:
            return tokens
    return float("inf")


def _told(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens < float("inf") else f"more than {MOST_TOKENS:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spoofing", description=__doc__)
    parser.add_argument("attacks", type=Path)
    folder: Path = parser.parse_args(arguments).attacks
    written = {name: list(read_transcripts(folder / f"{name}.jsonl"))[:ANSWERS] for name in WRITERS}
    everything = [one for answers in written.values() for one in answers]
    stated, _ = anyio.run(scored, everything, "bfloat16", 1)
    own, vocab_size = anyio.run(scored, everything, "float32", TOP_K)
    weighed = [weigh(*each, vocab_size) for each in zip(everything, stated, own, strict=True)]
    place = 0
    for name, answers in written.items():
        part, place = weighed[place : place + len(answers)], place + len(answers)
        rng = random.Random(name)
        streams = sorted(tokens_to_fail(part, rng) for _ in range(STREAMS))
        sys.stdout.write(
            f"{name:<14} {len(part)} answers, {sum(count for count, *_ in part):,} tokens: "
            f"{sum(failed for *_, failed in part) / len(part):.0%} failed alone, "
            f"mean ln e {statistics.fmean(gain for _, gain, _ in part):+.2f}, "
            f"{_told(streams[STREAMS // 2])} / {_told(streams[STREAMS * 95 // 100])} tokens until several fail\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
