"""``targon redteam``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from pydantic import Field
from rich.console import Console

from targon.cli.errors import CommandError
from targon.cli.logging import configure_logging
from targon.cli.options import Options
from targon.cli.progress import progress_bar
from targon.engines import ModelIdentity
from targon.verification import Calibration, CalibrationError, find_calibration

if TYPE_CHECKING:
    from targon.redteam import Attack, Bench, FrontRunning, Matrix, Organic
    from targon.redteam.bench import Tell

COMPLETIONS = 80
QUICK_COMPLETIONS = 12
QUICK_STREAMS = 100
FILE_WIDTH = 140
"""Columns of the table where no terminal says how many there are."""
QUICK_TOKENS = 4_000
QUICK_LIVES = 5
QUICK_REQUESTS = 1_500
"""With --organic, requests after which a stream ends."""


class RedteamCommand(Options):
    """Try attacks on every method of verification: which sees what, after how many tokens, and at what cost.

    Answers are kept and used again: a run that was stopped goes on where it ended.
    """

    quick: bool = False
    """A few attacks and few answers: minutes. Without it: all of them, an hour."""
    organic: bool = False
    """Instead of the matrix: what becomes of each attack that serves users' inferences alone, by audits alone."""
    front_running: bool = False
    """Instead of the matrix: what it gains a prover to know every public passage and all that an oracle revealed.
    --attacks names the cheap models that it runs for the rest; int4, if none is named."""
    attacks: tuple[str, ...] = ()
    """Attacks to try, by name, with commas between them; all, if none is named."""
    completions: int = Field(0, ge=0)
    """Answers of each attack; 0: 80, or 12 with --quick."""
    out: Path = Path("redteam")
    """Folder for redteam.json, redteam.html, redteam.png and redteam.svg; or organic.json and organic.md, or
    front-running.json and front-running.md."""
    cache: Path | None = None
    """Folder where answers are kept; by default beside the converted models."""
    calibration: Path | None = None
    """A file, or a folder of them: calibrations that go before those that come with the software."""
    honest: tuple[Path, ...] = ()
    """Files of transcripts of further honest engines: each gets a row, and must not be convicted. With
    --organic: what provers answer before they cheat."""
    threads: int = Field(0, ge=0)
    """Processor threads of the engines that are started; 0: one per core."""

    def run(self) -> int:
        configure_logging()
        from targon.engines.default_model import cache_folder
        from targon.redteam import ATTACKS, QUICK, Bench, UnknownAttack, evaluation_passages, with_needs

        if self.organic and self.front_running:
            raise CommandError("got --organic and --front_running, expected one of them at a time")
        if self.front_running:
            names = self.attacks or ("int4",)
        else:
            names = self.attacks or (QUICK if self.quick else tuple(attack.name for attack in ATTACKS))
        try:
            attacks = with_needs(names)
        except UnknownAttack as error:
            raise CommandError(str(error)) from error
        if self.front_running:
            self._check_cheap(attacks)
        missing = next((path for path in self.honest if not path.is_file()), None)
        if missing is not None:
            raise CommandError(f"--honest: got {missing}, which is no file; expected a file of transcripts")
        bench = Bench(
            folder=self.cache or cache_folder() / "redteam",
            passages=tuple(evaluation_passages()),
            completions=self.completions or (QUICK_COMPLETIONS if self.quick else COMPLETIONS),
            threads=self.threads or None,
        )
        run = (
            self._run_organic
            if self.organic
            else self._run_front_running
            if self.front_running
            else self._run
        )
        return anyio.run(run, bench, attacks)

    def _check_cheap(self, attacks: Sequence[Attack]) -> None:
        other = next((attack.name for attack in attacks if attack.kind not in ("weights", "honest")), None)
        if other is not None:
            raise CommandError(
                f"--attacks: got {other}; with --front_running expected cheaper weights, such as int4"
            )
        if self.honest:
            raise CommandError("--honest: got files; --front_running takes none")

    async def _run(self, bench: Bench, attacks: tuple[Attack, ...]) -> int:
        from targon.redteam import run_bench
        from targon.redteam.matrix import STREAMS
        from targon.redteam.streams import MOST_TOKENS

        with _shown() as tell:
            matrix = await run_bench(
                bench,
                attacks,
                self._calibration_of,
                clock=time.perf_counter,
                tell=tell,
                honest_files=self.honest,
                streams=QUICK_STREAMS if self.quick else STREAMS,
                most_tokens=QUICK_TOKENS if self.quick else MOST_TOKENS,
            )
        return await anyio.to_thread.run_sync(self._write, matrix)

    async def _run_organic(self, bench: Bench, attacks: tuple[Attack, ...]) -> int:
        from targon.redteam import run_organic
        from targon.redteam.organic import MOST
        from targon.redteam.organic_run import ORGANIC_STREAMS

        with _shown() as tell:
            organic = await run_organic(
                bench,
                attacks,
                self._calibration_of,
                clock=time.perf_counter,
                tell=tell,
                honest_files=self.honest,
                streams=QUICK_LIVES if self.quick else ORGANIC_STREAMS,
                most=QUICK_REQUESTS if self.quick else MOST,
            )
        return await anyio.to_thread.run_sync(self._write_organic, organic)

    def _write_organic(self, organic: Organic) -> int:
        from targon.redteam import table_of_organic

        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "organic.json").write_bytes(organic.to_bytes())
        table = table_of_organic(organic) + "\n"
        (self.out / "organic.md").write_text(table, "utf-8")
        sys.stdout.write(f"{table}\nWritten to {self.out}: organic.json and organic.md.\n")
        return _exit_code(organic.false_convictions)

    async def _run_front_running(self, bench: Bench, attacks: tuple[Attack, ...]) -> int:
        from targon.redteam import run_front_running
        from targon.redteam.matrix import STREAMS
        from targon.redteam.streams import MOST_TOKENS

        with _shown() as tell:
            found = await run_front_running(
                bench,
                attacks,
                self._calibration_of,
                clock=time.perf_counter,
                tell=tell,
                streams=QUICK_STREAMS if self.quick else STREAMS,
                most_tokens=QUICK_TOKENS if self.quick else MOST_TOKENS,
            )
        return await anyio.to_thread.run_sync(self._write_front_running, found)

    def _write_front_running(self, found: FrontRunning) -> int:
        from targon.redteam import table_of_front_running

        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "front-running.json").write_bytes(found.to_bytes())
        table = table_of_front_running(found) + "\n"
        (self.out / "front-running.md").write_text(table, "utf-8")
        sys.stdout.write(f"{table}\nWritten to {self.out}: front-running.json and front-running.md.\n")
        return _exit_code(found.false_convictions)

    def _calibration_of(self, reference: ModelIdentity) -> Calibration:
        try:
            return find_calibration(reference, () if self.calibration is None else (self.calibration,))
        except CalibrationError as error:
            raise CommandError(str(error)) from error

    def _write(self, matrix: Matrix) -> int:
        from targon.redteam import page_of, table_of, write_chart

        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "redteam.json").write_bytes(matrix.to_bytes())
        (self.out / "redteam.html").write_text(page_of(matrix), "utf-8")
        Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(table_of(matrix))
        try:
            write_chart(matrix, self.out)
        except ImportError:
            sys.stderr.write(
                "targon: no picture was drawn: it needs matplotlib (pip install 'targon[charts]')\n"
            )
        sys.stdout.write(f"Written to {self.out}: open {self.out / 'redteam.html'} in a browser.\n")
        return _exit_code(matrix.false_convictions)


@contextmanager
def _shown() -> Iterator[Tell]:
    """Where a run says how far it is: what it does now, how much of that is done, and of how much."""
    with progress_bar() as progress:
        task = progress.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield tell


def _exit_code(convicted: Sequence[str]) -> int:
    """1, and who they are, where honest provers were convicted."""
    if convicted:
        sys.stderr.write(f"targon: honest provers were convicted: {', '.join(convicted)}\n")
    return 1 if convicted else 0
