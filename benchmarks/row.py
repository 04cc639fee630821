"""One line of the benchmark table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    `name` says what was measured, `figure` and `unit` what came out, `target` what the project promises
    ("<= 0.3 ms", or "" where it promises nothing), `note` what a reader needs to repeat it (sizes, dtype).
    """

    name: str
    figure: float
    unit: str
    target: str = ""
    note: str = ""
