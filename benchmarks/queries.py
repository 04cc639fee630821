"""Query generation: how often the default model gives a query that can be asked, from the embedded source."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import anyio

from benchmarks.row import Row
from targon.engines import Engine, start_engine_process
from targon.oracle import Passage, StandardLibraryText
from targon.verification.querying import TRIES, Ending, NoQuery, QueryWriter
from targon.verifier import VerifierSettings

AT_ONCE = 8
MOST_FAILURES = 0.02


def run(quick: bool) -> list[Row]:
    """Write queries for passages drawn from the whole source."""
    return anyio.run(_measure, 100 if quick else 1_000)


async def _measure(count: int) -> list[Row]:
    source = StandardLibraryText()
    chance = random.Random(7)
    passages = [
        source.passage(index * (1 << 64) // len(source)) for index in chance.sample(range(len(source)), count)
    ]
    endings: Counter[Ending] = Counter()
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="targon-bench-") as folder:
        async with start_engine_process(Path(folder) / "engine.sock", dtype="float32") as engine:
            await _write(engine, passages, endings, faults)
    worst = ", ".join(f"{fault} {times}" for fault, times in faults.most_common())
    return [
        Row(
            "queries at the first try",
            endings["first"] / count,
            "of all",
            "",
            f"{count} passages of {len(source)}",
        ),
        Row(
            "queries that failed",
            endings["none"] / count,
            "of all",
            f"<= {MOST_FAILURES}",
            f"tries that failed: {worst}",
        ),
    ]


async def _write(
    engine: Engine, passages: list[Passage], endings: Counter[Ending], faults: Counter[str]
) -> None:
    writer = QueryWriter(engine, VerifierSettings().query_tokens, lambda ending: endings.update([ending]))
    chance = random.Random(8)
    left = [(passage, [chance.getrandbits(64) for _ in range(TRIES)]) for passage in passages]

    async def write() -> None:
        while left:
            passage, seeds = left.pop()
            try:
                await writer.write(passage.text, seeds)
            except NoQuery as error:
                faults.update(error.faults)

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(write)
