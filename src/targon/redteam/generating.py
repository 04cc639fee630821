"""Answers of attackers, made once and kept: a file of transcripts for each attack, in a folder for each workload.

Which requests they answer is in the folder's name; so another way of drawing them, or another model, begins
anew, and the old answers stay where they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import anyio

from targon.engines import Engine, GenerateTask, start_engine_process
from targon.protocol.messages import Message
from targon.redteam.adaptive import Repairing
from targon.redteam.attacks import BASELINES, Attack, EngineSpec, Parts
from targon.redteam.mixtures import Recorded
from targon.redteam.workloads import WORKLOADS, tasks_of, workload_id
from targon.verification.transcripts import Transcript, complete_file, read_transcripts

ENGINE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where answers are kept, and how many of them are wanted."""

    folder: Path
    passages: tuple[str, ...]
    completions: int
    threads: int | None = None
    """Of each engine; None: as many as there are cores."""

    def count(self, attack: Attack) -> int:
        """How many answers of an attack are wanted."""
        return max(4, round(self.completions * attack.factor))

    def path(self, attack: Attack) -> Path:
        """Where an attack's transcripts lie."""
        where = self.folder / workload_id(WORKLOADS[attack.workload], self.passages)
        return where / f"{attack.name}.jsonl"

    def tasks(self, attack: Attack) -> list[GenerateTask]:
        """What an attack is asked."""
        return tasks_of(WORKLOADS[attack.workload], self.passages, self.count(attack))

    def transcripts(self, attack: Attack) -> list[Transcript]:
        """The answers that there are, those that are wanted, in order; of two with one number (two runs at once may
        make them) the first. Reads a file."""
        path = self.path(attack)
        kept: dict[int, Transcript] = {}
        for transcript in read_transcripts(path) if path.exists() else ():
            if transcript.number < self.count(attack):
                kept.setdefault(transcript.number, transcript)
        return [kept[number] for number in sorted(kept)]

    def missing(self, attack: Attack) -> int:
        """How many answers are still to be made. Reads a file."""
        return self.count(attack) - len(self.transcripts(attack)) if attack.generates else 0

    @asynccontextmanager
    async def engine(self, spec: EngineSpec) -> AsyncGenerator[Engine, None]:
        """An engine process of its own.

        Raises:
            EngineUnavailable: if it doesn't start.
        """
        with tempfile.TemporaryDirectory(prefix="targon-redteam-") as folder:
            async with start_engine_process(
                Path(folder) / "engine.sock",
                dtype=spec.dtype,
                variant=spec.variant,
                threads=self.threads,
                max_batch=spec.batch,
                timeout_s=ENGINE_TIMEOUT_S,
            ) as engine:
                yield engine


class Repairs(Message):
    """What an adaptive prover paid for its disguise."""

    answers: int
    checked: int
    """Prefills of prompt and answer on the true model."""
    repaired: int
    """Tokens that were put right; each made the rest of its answer again."""


def read_repairs(path: Path) -> Repairs:
    """Those of the transcripts in a file; all zero where nothing was counted."""
    beside = path.with_suffix(".repairs.json")
    return (
        Repairs.from_bytes(beside.read_bytes())
        if beside.exists()
        else Repairs(answers=0, checked=0, repaired=0)
    )


async def generate_all(
    bench: Bench,
    attacks: Sequence[Attack],
    *,
    clock: Callable[[], float],
    done: Callable[[Attack, Transcript], None],
) -> None:
    """Make every answer that is missing; one engine (two, where an attack has two) runs at a time.

    Args:
        done: told of each new answer.

    Raises:
        EngineError: as the engines do; what was made until then is kept.
    """
    for specs, group in _by_engines(bench, attacks):
        async with AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(bench.engine(spec)) for spec in specs]
            for attack in group:
                await _generate(bench, attack, engines, clock, done)


def _by_engines(
    bench: Bench, attacks: Sequence[Attack]
) -> Iterator[tuple[tuple[EngineSpec, ...], list[Attack]]]:
    """The attacks that lack answers, those together that run on the same engines; honest first, slow last."""

    def specs(attack: Attack) -> tuple[EngineSpec, ...]:
        return (attack.engine,) if attack.second is None else (attack.engine, attack.second)

    left = [attack for attack in attacks if bench.missing(attack)]
    left.sort(
        key=lambda attack: (
            attack.second is not None,
            attack.needs_honest,
            not attack.honest,
            repr(specs(attack)),
        )
    )
    for key, group in groupby(left, specs):
        yield key, list(group)


async def _generate(
    bench: Bench,
    attack: Attack,
    engines: Sequence[Engine],
    clock: Callable[[], float],
    done: Callable[[Attack, Transcript], None],
) -> None:
    recorded = await anyio.to_thread.run_sync(_recorded, bench, attack, engines[0])
    parts = Parts(engines[0], engines[-1], recorded)
    engine = attack.wrap(parts) if attack.wrap else engines[0]
    path = bench.path(attack)
    try:
        await complete_file(
            path,
            engine,
            bench.tasks(attack),
            together=attack.engine.batch,
            clock=clock,
            done=lambda transcript: done(attack, transcript),
        )
    finally:
        if isinstance(engine, Repairing):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_add_repairs, path, engine)


def _recorded(bench: Bench, attack: Attack, engine: Engine) -> Recorded:
    if not attack.needs_honest:
        return Recorded(engine, ())
    path = bench.path(attack).with_name(f"{BASELINES[attack.workload]}.jsonl")
    return Recorded(engine, read_transcripts(path))


def _add_repairs(path: Path, engine: Repairing) -> None:
    before = read_repairs(path)
    repairs = Repairs(
        answers=before.answers + engine.answers,
        checked=before.checked + engine.checked,
        repaired=before.repaired + engine.repaired,
    )
    path.with_suffix(".repairs.json").write_bytes(repairs.to_bytes())
