"""Logs in files, and the ways in which files are damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import aclosing, closing
from pathlib import Path

from targon.ledger import (
    Event,
    Head,
    Record,
    Snapshot,
    SqliteLog,
)
from targon.ledger.port import EMPTY
from tests.ledger.history import ALICE, History, attempt, folded, verdict

PAGE = 4096

SHORT = History.begun(ALICE).add(attempt(ALICE, 1)).events
"""Few enough records for one page, which lies early in the file."""

LARGE = verdict(len(SHORT) - 1, evidence={"margins": "9" * 10_000})
"""An event that fills pages of its own, at the file's end."""

TEARS: dict[str, Callable[[Path, int], None]] = {
    "half its event": lambda path, seq: alter(
        path, "UPDATE records SET event = substr(event, 1, length(event) / 2) WHERE seq = ?", seq
    ),
    "no event": lambda path, seq: alter(path, "UPDATE records SET event = '' WHERE seq = ?", seq),
    "bytes that are no text": lambda path, seq: alter(
        path, "UPDATE records SET event = CAST(x'ff00fe' AS TEXT) WHERE seq = ?", seq
    ),
    "another hash": lambda path, seq: alter(path, "UPDATE records SET hash = 'beef' WHERE seq = ?", seq),
    "another predecessor": lambda path, seq: alter(path, "UPDATE records SET prev = 'é' WHERE seq = ?", seq),
    "no row": lambda path, seq: alter(path, "DELETE FROM records WHERE seq = ?", seq),
}


def story(blocks: int = 12) -> list[Event]:
    history = History.begun(ALICE)
    for block in range(1, blocks + 1):
        history.step(block, (ALICE, "pass"))
    return history.events


async def write(path: Path, events: list[Event], *more: Event) -> list[Record]:
    """A log of some events, and of more, each appended on its own."""
    async with aclosing(await SqliteLog.open(path)) as log:
        records = await log.append(events, expected=EMPTY)
        for event in more:
            records += await log.append([event], expected=Head(records[-1].seq, records[-1].hash))
    return records


async def read(path: Path, *, read_only: bool = False, start: int = 0) -> list[Record]:
    async with aclosing(await SqliteLog.open(path, read_only=read_only)) as log:
        return [record async for record in log.read(start)]


def alter(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def size_of(path: Path) -> int:
    return path.stat().st_size


def cut_off(path: Path, count: int) -> int:
    """Take bytes off a file's end; returns what is left."""
    os.truncate(path, size_of(path) - count)
    return size_of(path)


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def break_the_large_event(path: Path) -> None:
    """Point from the first page of its own that it fills to a page that is not there."""
    data = path.read_bytes()
    page = next(at for at in range(0, len(data), PAGE) if data[at + 4 : at + 1_000] == b"9" * 996)
    overwrite(path, page, b"\xff" * 4)


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def write_diary(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("dear diary, today")


async def save_snapshot(path: Path, records: list[Record], *, padding: int = 0) -> Snapshot:
    standings = folded(records)
    snapshot = Snapshot(standings.head, standings.to_snapshot() + b" " * padding)
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.save_snapshot(snapshot)
    return snapshot
