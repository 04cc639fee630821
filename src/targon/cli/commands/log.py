"""``targon status`` and ``targon why``: any standing, explained from the log."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
from pydantic import Field
from pydantic_settings import CliPositionalArg, CliUnknownArgs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from targon.cli.loading import load
from targon.cli.logging import configure_logging
from targon.cli.logs import log_to_read
from targon.cli.options import Options
from targon.cli.verifier_options import VerifierOptions
from targon.ledger import ProverStanding, Standings, explain, replay
from targon.protocol.primitives import Hotkey, Uid
from targon.protocol.weights import NoWeights


class StatusCommand(Options):
    """Show every prover's standing, from a verifier's log. Takes the verifier's own flags, too (--data.path,
    --database.host, --config …), and its environment: whatever says where its log is."""

    flags: CliUnknownArgs
    path: Path | None = None
    """The log's file, a verifier's folder, or a local network's."""

    def run(self) -> int:
        anyio.run(_status, self.path, verifier_options(self.flags))
        return 0


class WhyCommand(Options):
    """Explain one prover's standing, from a verifier's log: each verdict that moved it, in words. Takes the verifier's
    own flags after UID or hotkey, too (--data.path, --database.host, --config …), and its environment."""

    prover: CliPositionalArg[str]
    """Its UID or its hotkey."""
    flags: CliUnknownArgs
    path: Path | None = None
    """The log's file, a verifier's folder, or a local network's."""
    last: int = Field(20, ge=1)
    """How many of the newest entries to show."""

    def run(self) -> int:
        anyio.run(_why, self.path, verifier_options(self.flags), self.prover, self.last)
        return 0


def verifier_options(flags: Sequence[str]) -> VerifierOptions:
    """A verifier's options, as it would load them; what is unwise about them is said, and what is logged goes where
    its own log lines go.

    Raises:
        WrongOptions: if one of them cannot be.
    """
    loaded = load("verifier", flags, os.environ)
    for warning in loaded.warnings:
        sys.stderr.write(f"targon: warning: {warning}\n")
    options = loaded.options
    assert isinstance(options, VerifierOptions)
    configure_logging(
        debug=options.logging.debug, trace=options.logging.trace, json_lines=options.logging.json_lines
    )
    return options


async def _status(path: Path | None, options: VerifierOptions) -> None:
    async with log_to_read(path, options) as (name, log):
        standings = await replay(log)
    console = Console()
    console.print(f"{name}: {standings.head.seq + 1} records, up to block {standings.block}", soft_wrap=True)
    if standings.opened is None:
        return
    weights = standings.weights()
    known = {} if isinstance(weights, NoWeights) else weights
    table = Table(box=None, expand=True, header_style="bold", pad_edge=False)
    provers = standings.provers()
    native = any(prover.native for prover in provers)
    names = ("UID", "tier", "passed", "rate", "total", "tokens", "score", "weight")
    for name in (*names, "native") if native else names:
        table.add_column(name, justify="left" if name == "tier" else "right", no_wrap=True)
    table.add_column("last verdict", ratio=1, no_wrap=True, overflow="ellipsis")
    for prover in provers:
        weight = 0 if prover.uid is None else known.get(prover.uid, 0)
        table.add_row(*_row(prover, weight), *([_native(prover)] if native else []), _last(prover))
    console.print(table)
    if standings.audits_wait_since is not None:
        waiting, age = len(standings.under_audit), standings.block - standings.audits_wait_since
        console.print(
            f"{waiting} {'answer awaits its' if waiting == 1 else 'answers await their'} audit, "
            f"the oldest for {max(0, age)} blocks."
        )
    for line in oracle_lines(standings):
        console.print(line, soft_wrap=True, markup=False)
    if isinstance(weights, NoWeights):
        console.print(f"No weights would be set: {weights.reason}.")
    console.print("targon why UID explains a line.", style="dim")


def oracle_lines(standings: Standings) -> list[str]:
    """Where private inputs come from, and what oracles were caught at; nothing, where there never was one."""
    relies, lines = standings.relies_on, []
    if relies is not None:
        source = ", ".join(relies.inputs) or "the verifier's own source"
        lines.append(f"Private inputs: from {source}, since block {relies.block} ({relies.why}).")
        if relies.reference:
            lines.append(
                f"Verdicts: by engines of {', '.join(relies.reference)}, {relies.agreeing} of whom must agree."
            )
    for hotkey, oracle in sorted(standings.oracles.items()):
        if oracle.fault is not None:
            fault = oracle.fault
            lines.append(
                f"Oracle {hotkey} was caught in block {fault.block}: {fault.what} (record {fault.seq} of the log)."
            )
    return lines


def _row(prover: ProverStanding, weight: int) -> list[str]:
    rate = prover.success_rate
    return [
        "left" if prover.uid is None else str(prover.uid),
        prover.tier.label,
        f"{prover.successes}/{prover.attempts}",
        "" if rate is None else f"{float(rate):.0%}",
        str(prover.total_successes),
        f"{prover.verified_tokens}{'*' if prover.on_probation else ''}",
        f"{prover.score:.3f}",
        str(weight) if weight else "-",
    ]


def _native(prover: ProverStanding) -> str:
    """How many native requests it answered, of how many."""
    return f"{prover.native_replies}/{prover.native}" if prover.native else ""


def _last(prover: ProverStanding) -> str:
    last = prover.last_verdict
    return "" if last is None else f"{last.outcome}: {last.reason}"


async def _why(path: Path | None, options: VerifierOptions, prover: str, last: int) -> None:
    async with log_to_read(path, options) as (_, log):
        entries = await explain(log, Uid(int(prover)) if prover.isdecimal() else Hotkey(prover))
    console = Console(highlight=False)
    if len(entries) > last:
        console.print(
            f"… {len(entries) - last} earlier entries; --last {len(entries)} shows all", style="dim"
        )
    for entry in entries[-last:]:
        line = Text(f"block {entry.block:>6}  ", "dim")
        line.append(f"{entry.kind:<8} ", "bold")
        line.append(entry.text, _style(entry.text))
        console.print(line, soft_wrap=True)


def _style(text: str) -> str:
    words = {" passed ": "green", " failed ": "red", " inconclusive ": "yellow"}
    return next((style for word, style in words.items() if word in text), "")
