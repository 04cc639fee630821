"""The log in Redis beside the log in SQLite: events a second, appended as a verifier appends them.

Redis runs on loopback with an append-only file and ``appendfsync everysec``, in a process of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
import structlog

from benchmarks.fold import SAMPLE, history
from benchmarks.row import Row
from targon.ledger import Event, Head, Log, Record, SqliteLog, Verdict, replay
from targon.ledger.port import EMPTY
from targon.ledger.redis import RedisLog
from targon.protocol.primitives import Block
from tests.ledger.redis_server import redis_server

TARGET = ">= 5,000 events/s"


def run(quick: bool) -> list[Row]:
    """Measure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    records = history(Block(150 if quick else 600))
    try:
        return anyio.run(_both, records)
    finally:
        structlog.reset_defaults()


async def _both(records: Sequence[Record]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        async with aclosing(await SqliteLog.open(Path(folder) / "log.sqlite3")) as log:
            rows = await _measure("SQLite", log, records, "")
        with redis_server(Path(folder) / "redis") as server:
            async with RedisLog.open(server.address) as log:
                rows += await _measure("Redis", log, records, TARGET)
    return rows


async def _measure(name: str, log: Log, records: Sequence[Record], target: str) -> list[Row]:
    """Append a third each way, then read all of it back."""
    events = [record.event for record in records]
    third = len(events) // 3
    head = EMPTY
    rows = []
    for what, cut, note in (
        (
            "as a verifier appends",
            _as_a_verifier(events[:third]),
            f"all {SAMPLE} attempts of a block at once, each verdict alone, the step's end",
        ),
        ("one by one", _in_pieces(events[third : 2 * third], 1), "each acknowledged before the next"),
        ("64 at once", _in_pieces(events[2 * third :], 64), "64 in each append"),
    ):
        pieces = list(cut)
        count = sum(map(len, pieces))
        began = time.perf_counter()
        for piece in pieces:
            last = (await log.append(piece, expected=head))[-1]
            head = Head(last.seq, last.hash)
        rate = count / (time.perf_counter() - began)
        rows.append(Row(f"{name}: append {what}", rate, "events/s", target, f"{count:,} events: {note}"))
    began = time.perf_counter()
    await replay(log)
    rate = len(events) / (time.perf_counter() - began)
    return [*rows, Row(f"{name}: replay", rate, "events/s", note="read, hashed, parsed, folded")]


def _as_a_verifier(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Attempts are written together before they are sent, verdicts as answers come in."""
    piece: list[Event] = []
    for event in events:
        if piece and (isinstance(event, Verdict) or type(event) is not type(piece[-1])):
            yield piece
            piece = []
        piece.append(event)
    yield piece


def _in_pieces(events: Sequence[Event], size: int) -> Iterator[list[Event]]:
    for start in range(0, len(events), size):
        yield list(events[start : start + size])
