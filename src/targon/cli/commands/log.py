"""``targon status`` and ``targon why``: any standing, explained from the log."""

from __future__ import annotations

from pathlib import Path

import anyio
from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.table import Table

from targon.cli.errors import CommandError
from targon.cli.options import Options
from targon.ledger import SqliteLog, explain, replay
from targon.protocol.primitives import Hotkey, Uid
from targon.protocol.weights import NoWeights


class StatusCommand(Options):
    """Show every prover's standing, from a verifier's log."""

    path: Path = Path("~/.targon/verifier")
    """The log's file, a verifier's folder, or a local network's."""

    def run(self) -> int:
        anyio.run(_status, find_log(self.path))
        return 0


class WhyCommand(Options):
    """Explain one prover's standing, from a verifier's log: each verdict that moved it, in words."""

    prover: CliPositionalArg[str]
    """Its UID or its hotkey."""
    path: Path = Path("~/.targon/verifier")
    """The log's file, a verifier's folder, or a local network's."""
    last: int = Field(20, ge=1)
    """How many of the newest entries to show."""

    def run(self) -> int:
        anyio.run(_why, find_log(self.path), self.prover, self.last)
        return 0


def find_log(path: Path) -> Path:
    """The log that a path means.

    Raises:
        CommandError: if there is none.
    """
    place = path.expanduser()
    tried = [place] if place.suffix else [place / "log.sqlite", place / "verifier-1" / "log.sqlite"]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise CommandError(
            f"no log at {place}: expected a file log.sqlite there; give the verifier's --data.path, or a local "
            "network's folder, as --path"
        )
    return found


async def _status(path: Path) -> None:
    log = await SqliteLog.open(path, read_only=True)
    standings = await replay(log)
    await log.aclose()
    weights = standings.weights()
    table = Table(title=f"{path}: record {standings.head.seq}, block {standings.block}")
    for name in (
        "UID",
        "hotkey",
        "tier",
        "passed",
        "rate",
        "total",
        "tokens",
        "score",
        "weight",
        "last verdict",
    ):
        table.add_column(name, overflow="fold")
    for prover in standings.provers():
        rate, last = prover.success_rate, prover.last_verdict
        weight = 0 if isinstance(weights, NoWeights) or prover.uid is None else weights.get(prover.uid, 0)
        table.add_row(
            "left" if prover.uid is None else str(prover.uid),
            f"{prover.hotkey[:8]}…",
            prover.tier.label,
            f"{prover.successes}/{prover.attempts}",
            "" if rate is None else f"{float(rate):.0%}",
            str(prover.total_successes),
            f"{prover.verified_tokens}{' (probation)' if prover.on_probation else ''}",
            f"{prover.score:.4f}",
            str(weight),
            "" if last is None else f"{last.outcome}: {last.reason}",
        )
    console = Console()
    console.print(table)
    if isinstance(weights, NoWeights):
        console.print(f"No weights would be set: {weights.reason}.")


async def _why(path: Path, prover: str, last: int) -> None:
    log = await SqliteLog.open(path, read_only=True)
    entries = await explain(log, Uid(int(prover)) if prover.isdecimal() else Hotkey(prover))
    await log.aclose()
    console = Console()
    if len(entries) > last:
        console.print(
            f"… {len(entries) - last} earlier entries; --last {len(entries)} shows all", style="dim"
        )
    for entry in entries[-last:]:
        console.print(str(entry), highlight=False, markup=False, soft_wrap=True)
