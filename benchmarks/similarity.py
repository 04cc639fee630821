"""What similarity of sentence embeddings tells of native work: honest answers and cheats, at each tier's threshold.

The answers are those that ``targon redteam`` keeps. Each is compared with an honest one to the same request, twice:

* with one that was drawn with other noise, as a prover's own sampler draws it: native work;
* with one that was drawn with the request's own noise: work in a dialect that can be replayed, but beyond what is
  calibrated.

At T = 0 there is no noise, and nothing on file: those answers are made first.

python -m benchmarks.similarity ATTACKS       a folder in which ``targon redteam`` keeps answers to challenges
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np

from targon.engines import GenerateTask, open_sentence_embedder, start_engine_process
from targon.engines.chat import ChatTokenizer
from targon.engines.default_model import ensure_default_model
from targon.protocol.text import answer_text
from targon.protocol.tiers import TIERS, Tier
from targon.verification.similarity import similarity
from targon.verification.transcripts import Transcript, read_transcripts

TRUTHS = {"native work": "wrong-seed", "not counted": "honest-fp32"}
"""Whose answers are the ground truth: those of an honest engine with noise of its own, and those of the reference."""

GREEDY = 32
"""Requests that are made for T = 0."""

ENGINES = {"honest-bf16": ("bfloat16", None), "int8": ("bfloat16", "int8"), "int4": ("bfloat16", "int4")}
"""Who answers them, beside the reference."""

WRITERS = {
    "honest-bf16": "the model in bf16",
    "int8": "int8 weights",
    "int4": "int4 weights",
    "skipped-layers": "2 of the 30 layers left out",
    "other-model": "another model (20 of the 30 layers)",
    "truncated": "the model, cut off half-way",
    "no-passage": "the model, without the passage",
    "canned": "one old answer for everybody",
}
SHOWN = (Tier.BRONZE, Tier.GOLD, Tier.RUBY, Tier.MASTER, Tier.CHALLENGER)


def texts_of(path: Path, tokenizer: ChatTokenizer) -> dict[int, tuple[Transcript, str]]:
    """By number, each answer and its text."""
    eos = tokenizer.eos_ids(None)
    return {
        one.number: (one, answer_text(one.token_ids, tokenizer.decode, eos_ids=eos, stop=one.sampling.stop))
        for one in read_transcripts(path)
    }


Scores = dict[str, dict[float, list[float]]]
"""By who wrote, and by temperature: similarities with the ground truth."""


async def compared(folder: Path, truth_name: str, tokenizer: ChatTokenizer) -> Scores:
    truth = texts_of(folder / f"{truth_name}.jsonl", tokenizer)
    found: Scores = {}
    async with open_sentence_embedder() as embedder:
        for name, words in WRITERS.items():
            for number, (asked, text) in texts_of(folder / f"{name}.jsonl", tokenizer).items():
                if number in truth:
                    score = await similarity(text, truth[number][1], embedder)
                    found.setdefault(words, {}).setdefault(asked.sampling.temperature, []).append(score)
        numbers = sorted(truth)
        for number, other in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
            score = await similarity(truth[number][1], truth[other][1], embedder)
            temperature = truth[number][0].sampling.temperature
            found.setdefault("the model, to another question", {}).setdefault(temperature, []).append(score)
    return found


async def compared_greedy(folder: Path) -> Scores:
    asked = [
        one.generate_task() for one in read_transcripts(folder / "honest-bf16.jsonl") if one.number < GREEDY
    ]
    truth = await _greedy(asked, "float32", None)
    found: Scores = {}
    async with open_sentence_embedder() as embedder:
        for name, (dtype, variant) in ENGINES.items():
            answers = await _greedy(asked, dtype, variant)
            pairs = zip(answers, truth, strict=True)
            found[WRITERS[name]] = {0.0: [await similarity(*pair, embedder) for pair in pairs]}
    return found


async def _greedy(asked: Sequence[GenerateTask], dtype: str, variant: str | None) -> list[str]:
    """What an engine answers to requests at T = 0, sixteen at a time."""
    answers = [""] * len(asked)
    limiter = anyio.Semaphore(16)
    with tempfile.TemporaryDirectory(prefix="targon-bench-") as folder:
        async with start_engine_process(
            Path(folder) / "engine.sock", dtype=dtype, variant=variant, max_batch=16, timeout_s=600.0
        ) as engine:

            async def answer(place: int) -> None:
                changed = {"dialect": "greedy", "temperature": 0.0, "top_p": 1.0, "top_k": 0}
                task = replace(asked[place], sampling=asked[place].sampling.model_copy(update=changed))
                async with limiter, aclosing(engine.generate(task)) as steps:
                    answers[place] = "".join([step.text async for step in steps])

            async with anyio.create_task_group() as group:
                for place in range(len(asked)):
                    group.start_soon(answer, place)
    return answers


def lines_of(found: Mapping[str, Mapping[float, Sequence[float]]]) -> list[str]:
    """A table in Markdown."""
    heads = [f"{tier.label} ({TIERS[tier].similarity_threshold:g})" for tier in SHOWN]
    lines = [
        f"| who wrote | T | answers | median | 5% | {' | '.join(heads)} |",
        f"|---|--:|--:|--:|--:|{'--:|' * len(heads)}",
    ]
    for words, by_temperature in found.items():
        for temperature in sorted(by_temperature):
            scores = np.array(by_temperature[temperature])
            passed = [float((scores >= TIERS[tier].similarity_threshold).mean()) for tier in SHOWN]
            low, middle = np.quantile(scores, (0.05, 0.5))
            shares = " | ".join(f"{share:.0%}" for share in passed)
            lines.append(
                f"| {words} | {temperature:g} | {scores.size} | {middle:.2f} | {low:.2f} | {shares} |"
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.similarity", description=__doc__)
    parser.add_argument("attacks", type=Path)
    folder: Path = parser.parse_args(arguments).attacks
    tokenizer = ChatTokenizer(ensure_default_model())
    for words, truth in TRUTHS.items():
        found = anyio.run(compared, folder, truth, tokenizer)
        sys.stdout.write(f"{words}\n\n" + "\n".join(lines_of(found)) + "\n\n")
    sys.stdout.write("T = 0\n\n" + "\n".join(lines_of(anyio.run(compared_greedy, folder))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
