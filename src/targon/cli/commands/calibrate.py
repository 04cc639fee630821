"""``targon calibrate``."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import anyio
from pydantic import Field
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from targon.cli.errors import CommandError
from targon.cli.logging import configure_logging
from targon.cli.options import Options
from targon.cli.progress import progress_bar

if TYPE_CHECKING:
    from targon.engines import Engine
    from targon.protocol.messages import Dialect
    from targon.verification.calibrating import Configuration, Measured, Tried
    from targon.verification.transcripts import Transcript

TOKENS_OF_AN_ANSWER = 95
"""What the answers of the default model come to on average, where up to 192 tokens are asked for."""

LARGEST_BATCH = 32
FILE_WIDTH = 140
"""Columns of the table where no terminal says how many there are."""


class CalibrateCommand(Options):
    """Measure how far honest engines differ from the reference, and write a calibration.

    Answers are kept and used again: a run that was stopped goes on where it ended. On two cores, 100,000
    positions take about half an hour.
    """

    out: Path = Path("calibrations")
    """Folder for the calibration; 'targon verifier --calibration.path' takes it."""
    positions: int = Field(300_000, ge=1_000)
    """Tokens to calibrate on. The more, the fewer tokens convict a subtle cheat: 100,000 at least are advised."""
    evaluate: int = Field(200_000, ge=500)
    """Tokens of other honest answers to try the calibration on."""
    model: str = "default"
    """A model folder in the Hugging Face layout, or 'default': SmolLM2-135M-Instruct."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the reference."""
    reference_url: str = ""
    """Address of an engine to be the reference, in place of one that is started: vLLM or SGLang."""
    engines: tuple[str, ...] = ()
    """NAME=URL: honest engines over HTTP, each of which answers as a configuration of its own, in the dialect that
    it can do. It must run the same model."""
    engine_positions: int = Field(50_000, ge=1_000)
    """Tokens that each of those answers, half as many again for trying the calibration on."""
    engine_batch: int = Field(16, ge=1, le=256)
    """Requests that each of those is given at once."""
    transcripts: tuple[str, ...] = ()
    """NAME=FILE: honest answers of other engines or machines, to calibrate on as a configuration of their own."""
    cache: Path | None = None
    """Folder where answers are kept; by default beside the converted models."""
    threads: int = Field(0, ge=0)
    """Processor threads of each engine; 0: one per core."""

    def run(self) -> int:
        configure_logging()
        return anyio.run(self._run)

    async def _run(self) -> int:
        from targon.redteam import calibration_passages, evaluation_passages
        from targon.verification.calibrating import CALIBRATED, EVALUATED

        given = _given(self.transcripts)
        files: dict[Path, tuple[Configuration, Sequence[str], int]] = {}
        own: dict[str, list[Path]] = {}
        others: dict[str, Path] = {}
        for purpose, runs, passages_of, total in (
            ("calibration", CALIBRATED, calibration_passages, self.positions),
            ("evaluation", EVALUATED, evaluation_passages, self.evaluate),
        ):
            passages = await anyio.to_thread.run_sync(passages_of)
            for run in runs:
                path = self._folder() / purpose / f"{_slug(run.name)}.jsonl"
                files[path] = (run, passages, max(2, round(total * run.share / TOKENS_OF_AN_ANSWER)))
                if purpose == "calibration":
                    own.setdefault(run.name.removesuffix(", usual requests"), []).append(path)
                else:
                    others[run.name] = path
        for name, path in given.items():
            own.setdefault(name, []).append(path)
        remote = _given_engines(self.engines)
        with progress_bar() as progress:
            for dtype in ("bfloat16", "float32"):
                await self._answer({p: f for p, f in files.items() if f[0].dtype == dtype}, dtype, progress)
            for name, url in remote.items():
                path, other = await self._ask(name, url, progress)
                own.setdefault(name, []).append(path)
                others[name] = other
            most = {path: count for path, (_, _, count) in files.items()}
            return await self._measure(own, others, most, progress)

    async def _answer(
        self, files: dict[Path, tuple[Configuration, Sequence[str], int]], dtype: str, progress: Progress
    ) -> None:
        """Have honest engines of a number format answer what is missing."""
        from targon.verification.transcripts import complete_file
        from targon.verification.workload import draw_tasks

        wanted = {
            p: draw_tasks(passages, run.mix, f"{p.parent.name} {p.stem}", n)
            for p, (run, passages, n) in files.items()
        }
        have = {path: await anyio.to_thread.run_sync(_lines, path) for path in wanted}
        if all(have[path] >= len(tasks) for path, tasks in wanted.items()):
            return
        async with AsyncExitStack() as stack:
            engine = await self._engine(stack, dtype)
            for path, tasks in wanted.items():
                bar = progress.add_task(
                    f"answers, {files[path][0].name}", total=len(tasks), completed=have[path]
                )
                await complete_file(
                    path,
                    engine,
                    tasks,
                    together=files[path][0].together,
                    clock=time.perf_counter,
                    done=_advancing(progress, bar),
                )

    async def _ask(self, name: str, url: str, progress: Progress) -> tuple[Path, Path]:
        """Have an engine over HTTP answer what is missing: the files to calibrate on, and to try it on."""
        from targon.engines.remote import open_remote_engine
        from targon.redteam import calibration_passages, evaluation_passages
        from targon.verification.transcripts import complete_file
        from targon.verification.workload import BROAD, draw_tasks, in_dialect

        paths = []
        for purpose, passages_of, total in (
            ("calibration", calibration_passages, self.engine_positions),
            ("evaluation", evaluation_passages, self.engine_positions // 2),
        ):
            path = self._folder() / purpose / f"{_slug(name)}.jsonl"
            paths.append(path)
            passages = await anyio.to_thread.run_sync(passages_of)
            tasks = draw_tasks(
                passages, BROAD, f"{purpose} {path.stem}", max(2, total // TOKENS_OF_AN_ANSWER)
            )
            have = await anyio.to_thread.run_sync(_lines, path)
            if have >= len(tasks):
                continue
            async with open_remote_engine(url, model=self.model, max_requests=self.engine_batch) as engine:
                dialect: Dialect = "targon/1" if "targon/1" in engine.identity.dialects else "greedy"
                bar = progress.add_task(f"answers, {name}", total=len(tasks), completed=have)
                await complete_file(
                    path,
                    engine,
                    [in_dialect(task, dialect) for task in tasks],
                    together=self.engine_batch,
                    clock=time.perf_counter,
                    done=_advancing(progress, bar),
                )
        return paths[0], paths[1]

    async def _measure(
        self,
        own: dict[str, list[Path]],
        others: dict[str, Path],
        most: Mapping[Path, int],
        progress: Progress,
    ) -> int:
        """Replay all, calibrate on some, try it on the others; of some files that many answers at most."""
        from targon.verification import save_calibration
        from targon.verification.calibrating import calibrate, describe, try_out

        async with AsyncExitStack() as stack:
            reference = await self._reference(stack)
            measured = {
                name: [
                    one
                    for path in paths
                    for one in await _measured(path, reference, most.get(path), progress)
                ]
                for name, paths in own.items()
            }
            tried_on = {
                name: await _measured(path, reference, most.get(path), progress)
                for name, path in others.items()
            }
            identity = reference.identity
        calibration = await anyio.to_thread.run_sync(calibrate, identity, measured)
        tried = {name: try_out(calibration, answers) for name, answers in tried_on.items()}
        self.out.mkdir(parents=True, exist_ok=True)
        path = save_calibration(calibration, self.out)
        report = self.out / "evaluation" / path.name
        report.parent.mkdir(exist_ok=True)
        report.write_text(json.dumps({name: _as_json(one) for name, one in tried.items()}, indent=1) + "\n")
        console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
        for band in calibration.bands:
            console.print(describe(band), highlight=False)
        console.print(_table(tried))
        console.print(f"Written: {path}", highlight=False, soft_wrap=True)
        convicted = [name for name, one in tried.items() if one.convicted_at is not None]
        if convicted:
            console.print(
                f"Honest engines were convicted: {', '.join(convicted)}. Don't use it.", style="red"
            )
        return 1 if convicted else 0

    def _folder(self) -> Path:
        from targon.engines.default_model import cache_folder

        name = self.model if self.model == "default" else Path(self.model).resolve().name
        return (self.cache or cache_folder() / "calibration") / _slug(name)

    async def _reference(self, stack: AsyncExitStack) -> Engine:
        from targon.cli.engine import check_reference
        from targon.engines.remote import open_remote_engine

        if not self.reference_url:
            return await self._engine(stack, self.dtype)
        engine = await stack.enter_async_context(
            open_remote_engine(self.reference_url, model=self.model, dtype=self.dtype)
        )
        check_reference(engine)
        return engine

    async def _engine(self, stack: AsyncExitStack, dtype: str) -> Engine:
        from targon.engines import start_engine_process

        folder = stack.enter_context(TemporaryDirectory(prefix="targon-calibrate-"))
        return await stack.enter_async_context(
            start_engine_process(
                Path(folder) / "engine.sock",
                model=self.model,
                dtype=dtype,
                threads=self.threads or None,
                max_batch=LARGEST_BATCH,
                timeout_s=600.0,
            )
        )


async def _measured(path: Path, reference: Engine, most: int | None, progress: Progress) -> list[Measured]:
    """A file's answers, or the first of them, replayed."""
    from targon.verification.calibrating import Measured
    from targon.verification.replays import replay_all, replays_path
    from targon.verification.transcripts import read_transcripts

    transcripts = await anyio.to_thread.run_sync(lambda: list(islice(read_transcripts(path), most)))
    bar = progress.add_task(f"replays, {path.parent.name} of {path.stem}", total=len(transcripts))
    replays = await replay_all(
        replays_path(path, reference.identity),
        transcripts,
        reference,
        done=lambda count: progress.advance(bar, count),
    )
    return [Measured.of(one, replayed) for one, replayed in zip(transcripts, replays, strict=True)]


def _given(transcripts: Sequence[str]) -> dict[str, Path]:
    given = {}
    for text in transcripts:
        name, equals, file = text.partition("=")
        if not (name and equals and Path(file).is_file()):
            raise CommandError(f"--transcripts: got {text!r}, expected NAME=FILE, a file of transcripts")
        given[name] = Path(file)
    return given


def _given_engines(engines: Sequence[str]) -> dict[str, str]:
    given = {}
    for text in engines:
        name, equals, url = text.partition("=")
        if not (name and equals and url.startswith(("http://", "https://"))):
            raise CommandError(f"--engines: got {text!r}, expected NAME=http://host:port")
        given[name] = url
    return given


def _lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _advancing(progress: Progress, bar: object) -> Callable[[Transcript], None]:
    return lambda _: progress.advance(bar)  # type: ignore[arg-type]


def _table(tried: dict[str, Tried]) -> Table:
    table = Table(title="Honest answers that it was not made from")
    for name in ("configuration", "answers", "tokens", "mismatches", "no evidence", "largest e", "convicted"):
        table.add_column(name, justify="left" if name == "configuration" else "right")
    for name, one in tried.items():
        table.add_row(
            name,
            f"{one.completions:,}",
            f"{one.tokens:,}",
            f"{one.mismatches:,}",
            f"{one.without_evidence:,}",
            f"{_as_json(one)['largest_e']:.3g}",
            "-" if one.convicted_at is None else f"at token {one.convicted_at:,}",
        )
    return table


def _as_json(one: Tried) -> dict[str, float]:
    return {
        "answers": one.completions,
        "tokens": one.tokens,
        "mismatches": one.mismatches,
        "without_evidence": one.without_evidence,
        "largest_e": math.exp(min(one.largest_log_e, 700.0)),
        "convicted": float(one.convicted_at is not None),
    }
