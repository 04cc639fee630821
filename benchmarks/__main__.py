"""Measure everything, and print one table with the machine's description.

python -m benchmarks                                  every module but gateway
python -m benchmarks sampler fold                     these
python -m benchmarks --quick                          fewer repetitions
python -m benchmarks --write docs/benchmarks.md       and put the table there
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.row import Row

PACKAGES = ("targon", "numpy", "numba", "torch", "transformers", "aiohttp", "bittensor")
INTERFACE = (
    *("__main__", "row", "written_log", "endurance", "honest", "limits", "similarity", "spoofing"),
    "vllm_plugin",
    "vllm_verdict",
)
"""Modules of this folder that measure nothing, or only files or engines that they are given."""

ASKED_FOR = ("gateway",)
"""Measured only by name: it needs what `make bench-gateway` sets up."""


def main() -> None:
    names = [
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in INTERFACE
    ]
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, rougher figures")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as Markdown, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"got {', '.join(sorted(unknown))}, expected some of: {', '.join(names)}")

    console = Console()
    rows: list[tuple[str, Row]] = []
    for name in arguments.names or [name for name in names if name not in ASKED_FOR]:
        began = time.monotonic()
        console.print(f"measuring {name} ...", style="dim")
        run = importlib.import_module(f"benchmarks.{name}").run
        rows.extend((name, row) for row in run(arguments.quick))
        console.print(f"  {time.monotonic() - began:.0f} s", style="dim")

    machine = describe_machine()
    console.print(table(rows))
    for label, value in machine:
        console.print(f"{label}: {value}", highlight=False)
    if arguments.write is not None:
        arguments.write.write_text(markdown(rows, machine), "utf-8")


def table(rows: Sequence[tuple[str, Row]]) -> Table:
    """The rows as a table for the terminal."""
    view = Table(title="Benchmarks", title_justify="left")
    view.add_column("room")
    view.add_column("what")
    view.add_column("figure", justify="right")
    view.add_column("target")
    view.add_column("note", style="dim")
    previous = ""
    for room, row in rows:
        view.add_row(room if room != previous else "", row.name, figure(row), row.target, row.note)
        previous = room
    return view


def markdown(rows: Sequence[tuple[str, Row]], machine: Sequence[tuple[str, str]]) -> str:
    """The rows as a page of the documentation."""
    lines = [
        "# Benchmarks",
        "",
        "Figures are from one machine: believe the ratios. The command that made them stands at the end;",
        "`make bench` measures everything on yours.",
        "",
        "| room | what | figure | target | note |",
        "|---|---|--:|---|---|",
    ]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        for cells in ((room, row.name, figure(row), row.target, row.note) for room, row in rows)
    ]
    lines += ["", "## The machine", ""]
    lines += [f"- {label}: {value}" for label, value in machine]
    return "\n".join(lines) + "\n"


def figure(row: Row) -> str:
    """A figure with its unit, to three digits that matter."""
    digits = 0 if abs(row.figure) >= 100 else 1 if abs(row.figure) >= 10 else 2 if abs(row.figure) >= 1 else 4
    return f"{row.figure:,.{digits}f} {row.unit}"


def describe_machine() -> list[tuple[str, str]]:
    """What the figures were measured on, as (label, value)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [
        ("processor", f"{processor()}, {os.cpu_count()} cores"),
        ("memory", f"{memory / (1 << 30):.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", platform.python_version()),
        ("packages", ", ".join(f"{name} {installed(name)}" for name in PACKAGES)),
        ("measured", f"{datetime.now(UTC):%Y-%m-%d} with `python -m benchmarks {shlex.join(sys.argv[1:])}`"),
    ]


def processor() -> str:
    """The processor's name, as the system knows it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"


if __name__ == "__main__":
    main()
