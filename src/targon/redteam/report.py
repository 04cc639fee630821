"""The matrix as a table in a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from targon.protocol.tiers import Tier
from targon.redteam.judging import DIVERGENCE, EVIDENCE, EXACT, STRUCTURE, SURPRISAL
from targon.redteam.matrix import Matrix, Row

SHOWN = {
    STRUCTURE: "structure",
    EXACT: "exact",
    DIVERGENCE[Tier.BRONZE]: "Bronze",
    DIVERGENCE[Tier.CHALLENGER]: "Challenger",
    SURPRISAL: "surprisal",
    EVIDENCE: "evidence",
}
"""The methods that fit a terminal; the files have all."""


def table_of(matrix: Matrix) -> Table:
    """The matrix: detection rates of single answers, then tokens to conviction."""
    table = Table(
        title="Share of answers that fail, looked at alone; tokens until evidence convicts",
        caption=f"{matrix.model}; reference: {matrix.reference}; {matrix.streams} streams of answers each, "
        f"ended after {matrix.most_tokens:,} tokens",
    )
    table.add_column("attack", no_wrap=True)
    for label in SHOWN.values():
        table.add_column(label, justify="right")
    for label in ("tokens", "95%", "goal", "largest ln e"):
        table.add_column(label, justify="right")
    kind = ""
    for row in matrix.rows:
        if row.kind != kind:
            table.add_section()
            kind = row.kind
        table.add_row(
            row.name,
            *(_rate(row, method) for method in SHOWN),
            median_text(matrix, row),
            p95_text(matrix, row),
            "" if row.goal is None else f"{row.goal:,}",
            f"{row.peak:.1f}" if row.conviction is not None else "–",
        )
    costs = [f"{matrix.costs[method]:.2%}" if method in matrix.costs else "" for method in SHOWN]
    table.add_section()
    table.add_row("cost, of generating", *costs, "", "", "", "", style="dim")
    return table


def _rate(row: Row, method: str) -> Text:
    rate = row.detection.get(method)
    if rate is None:
        return Text("–", style="dim")
    honest = row.kind == "honest"
    style = "dim" if rate == 0 else ("red" if honest else "green" if rate > 0.5 else "yellow")
    return Text(f"{rate:.0%}", style=style)


def median_text(matrix: Matrix, row: Row) -> str:
    """Tokens to conviction of half the streams, in words."""
    return _tokens(matrix, row, None if row.conviction is None else row.conviction.median)


def p95_text(matrix: Matrix, row: Row) -> str:
    """Tokens to conviction of 95% of streams, in words."""
    return _tokens(matrix, row, None if row.conviction is None else row.conviction.p95)


def _tokens(matrix: Matrix, row: Row, tokens: int | None) -> str:
    if row.conviction is None:
        return "–"
    if tokens is not None:
        return f"{tokens:,}"
    return "never" if row.conviction.convicted == 0 else f"> {matrix.most_tokens:,}"
