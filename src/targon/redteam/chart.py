"""The matrix drawn: a heat map of attack by method, and the evidence over tokens, in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from targon.redteam.judging import DIVERGENCE, EVIDENCE, EXACT, STRUCTURE, SURPRISAL
from targon.redteam.matrix import Matrix, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = (STRUCTURE, EXACT, *DIVERGENCE.values(), SURPRISAL, EVIDENCE)

DRAWN: Final = (
    "honest-bf16", "relay", "wrong-seed", "int4", "fp8", "int8", "kv8", "T+0.1", "T-0.05", "no-top-p",
    "top-2-bug", "int4-5%",
)  # fmt: skip
"""The rows whose evidence is drawn, where they are there; the page has all."""

_PNG_DOTS = 144


def write_chart(matrix: Matrix, folder: Path) -> tuple[Path, Path]:
    """Write ``redteam.png`` and ``redteam.svg``; returns their paths. Slow: keep it off the event loop.

    Raises:
        ImportError: if matplotlib isn't installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.6 + 0.24 * max(len(matrix.rows), 16)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _heat_map(left, matrix)
    _evidence(right, matrix)
    png, svg = folder / "redteam.png", folder / "redteam.svg"
    FigureCanvasAgg(figure)
    figure.savefig(png, dpi=_PNG_DOTS)
    FigureCanvasSVG(figure)
    figure.savefig(svg, metadata={"Date": None})
    return png, svg


def _heat_map(axes: Axes, matrix: Matrix) -> None:
    rates = np.array([[_rate(row, method) for method in COLUMNS] for row in matrix.rows])
    axes.imshow(np.ma.masked_invalid(rates), cmap="YlGnBu", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(COLUMNS)), COLUMNS, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(matrix.rows)), [_label(matrix, row) for row in matrix.rows], fontsize=8)
    for place, row in enumerate(rates):
        for column, rate in enumerate(row):
            text = "–" if np.isnan(rate) else f"{rate * 100:.0f}"
            axes.text(
                column, place, text, ha="center", va="center", fontsize=6, color="w" if rate > 0.6 else "k"
            )
    axes.set_title(
        "Answers that fail, looked at alone (%)\nafter the name: tokens until evidence convicts", fontsize=10
    )


def _rate(row: Row, method: str) -> float:
    rate = row.detection.get(method)
    return float("nan") if rate is None else rate


def _label(matrix: Matrix, row: Row) -> str:
    if row.conviction is None:
        return f"{row.name}  –"
    if row.conviction.median is not None:
        return f"{row.name}  {row.conviction.median:,}"
    return f"{row.name}  " + ("never" if row.conviction.convicted == 0 else f"> {matrix.most_tokens:,}")


def _evidence(axes: Axes, matrix: Matrix) -> None:
    rows = [row for row in matrix.rows if row.name in DRAWN and row.growth is not None]
    for row in rows or [row for row in matrix.rows if row.growth is not None][:12]:
        assert row.growth is not None
        honest = row.kind == "honest"
        (line,) = axes.plot(
            row.growth.tokens, row.growth.median, label=row.name, linewidth=2.6 if honest else 1.5,
            color="black" if honest else None, linestyle="--" if row.kind == "relay" else "-",
        )  # fmt: skip
        axes.fill_between(
            row.growth.tokens,
            row.growth.low,
            row.growth.high,
            color=line.get_color(),
            alpha=0.08,
            linewidth=0,
        )
    axes.axhline(matrix.conviction, color="crimson", linewidth=1)
    axes.text(
        matrix.most_tokens,
        matrix.conviction + 0.2,
        "conviction: e = 10,000 ",
        ha="right",
        color="crimson",
        fontsize=8,
    )
    axes.set_xscale("log")
    axes.set_xlim(1, matrix.most_tokens)
    axes.set_ylim(-3, 15)
    axes.set_xlabel("verified tokens")
    axes.set_ylabel("ln e (median of streams; band: the middle 80%)")
    axes.set_title("Evidence over time", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.grid(alpha=0.2)
