"""What was found, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from targon.doctor.examination import Row

_MARKS = {"good": ("good", "green"), "note": ("note", "yellow"), "bad": ("BAD", "bold red")}


def is_well(rows: Sequence[Row]) -> bool:
    """Whether nothing is bad."""
    return all(row.outcome != "bad" for row in rows)


def as_json(what: str, rows: Sequence[Row]) -> str:
    """``{"role", "well", "findings": [{"check", "outcome", "found", "advice"}, …]}``."""
    found = {"role": what, "well": is_well(rows), "findings": [asdict(row) for row in rows]}
    return json.dumps(found, indent=1, ensure_ascii=False)


def show(what: str, rows: Sequence[Row], console: Console) -> None:
    """A table, and a last line that says how it stands."""
    table = Table(
        title=f"What {'an' if what[0] in 'aeiou' else 'a'} {what} needs",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", ratio=3, overflow="fold")
    table.add_column("what to do", ratio=2, overflow="fold")
    before = ""
    for row in rows:
        mark, style = _MARKS[row.outcome]
        # text, never markup: what was found quotes files and strangers
        table.add_row(
            Text(row.check if row.check != before else ""),
            Text(mark, style),
            Text(plain(row.found)),
            Text(plain(row.advice)),
        )
        before = row.check
    console.print(table)
    console.print(last_line(what, rows), soft_wrap=True)


def last_line(what: str, rows: Sequence[Row]) -> str:
    """How it stands, in a sentence."""
    wrong = list(dict.fromkeys(row.check for row in rows if row.outcome == "bad"))
    notes = sum(row.outcome == "note" for row in rows)
    rest = f" {notes} note(s) are worth a look." if notes else ""
    if wrong:
        return f"The {what} would not work as it is. First put right: {', '.join(wrong)}.{rest}"
    return f"Nothing is in the {what}'s way.{rest}"


def plain(text: str) -> str:
    """What others wrote, safe for a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
