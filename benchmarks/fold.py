"""The log and its fold: events a second, folded from memory, read from disk, and written to it."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import anyio

from benchmarks.row import Row
from targon.ledger import (
    Attempt,
    Event,
    Head,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ProverJoined,
    Record,
    Snapshot,
    SqliteLog,
    Standings,
    StepClosed,
    Verdict,
    chain_records,
    replay,
)
from targon.ledger.port import EMPTY
from targon.protocol import draws
from targon.protocol.keys import hotkey_of
from targon.protocol.primitives import Block, Hotkey, Interval, Uid
from targon.protocol.profile import STANDARD

PROVERS = 250
SAMPLE = 10
"""Provers that a verifier challenges per block, by default."""


def run(quick: bool) -> list[Row]:
    """Measure."""
    records = history(Block(1_000 if quick else 5_000))
    return [_fold(records, 2 if quick else 5), *anyio.run(_disk, records, 50 if quick else 300)]


def history(blocks: Block) -> list[Record]:
    """A verifier's log: each block some attempts, a verdict on each, and the step's end; intervals of 360."""
    provers = [hotkey_of(hashlib.sha256(b"prover %d" % n).digest()) for n in range(PROVERS)]
    events: list[Event] = [
        LogOpened(
            spec_version=1,
            software="targon",
            genesis="ab" * 32,
            netuid=4,
            verifier=hotkey_of(bytes(32)),
            profile=STANDARD,
            models=(),
        ),
        *(ProverJoined(block=Block(0), uid=Uid(n), hotkey=prover) for n, prover in enumerate(provers)),
    ]
    for block in map(Block, range(blocks)):
        interval, place = divmod(block, STANDARD.interval_blocks)
        if place == 0:
            events += _turn(Interval(interval), block)
        first = len(events)
        events += [_attempt(provers[(7 * block + n) % PROVERS], block) for n in range(SAMPLE)]
        events += [_verdict(first + n, passed=(first + n) % 9 > 0) for n in range(SAMPLE)]
        events.append(StepClosed(block=block))
    return chain_records(events, EMPTY)


def _turn(interval: Interval, block: Block) -> list[Event]:
    secret, before = (bytes([number % 256]) * 32 for number in (interval, interval - 1))
    opened = IntervalOpened(interval=interval, block=block, commitment=draws.commitment(secret))
    if interval == 0:
        return [opened]
    return [IntervalClosed(interval=Interval(interval - 1), block=block, secret=before.hex()), opened]


def _attempt(prover: Hotkey, block: Block) -> Attempt:
    return Attempt(
        block=block,
        purpose="challenge",
        prover=prover,
        request_digest="cd" * 32,
        model="smollm2",
        dialect="targon/1",
        max_tokens=64,
    )


def _verdict(attempt: int, *, passed: bool) -> Verdict:
    return Verdict(
        attempt=attempt,
        outcome="pass" if passed else "fail",
        method="exact",
        score=1.0 if passed else 0.25,
        reason="64 of 64 tokens equal the ground truth" if passed else "token 16 of 64 differs",
        evidence={} if passed else {"position": 16, "claimed": 11, "expected": 12},
        replied=True,
        tokens=64,
        tokens_per_s=20.0 + attempt % 31,
    )


def _fold(records: Sequence[Record], repetitions: int) -> Row:
    best = float("inf")
    for _ in range(repetitions):
        standings = Standings()
        began = time.perf_counter()
        for record in records:
            standings.apply(record)
        best = min(best, time.perf_counter() - began)
    note = f"{len(records):,} decoded events, {PROVERS} provers, best of {repetitions}"
    return Row("fold", len(records) / best, "events/s", ">= 200,000 events/s", note)


async def _disk(records: Sequence[Record], appends: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        async with aclosing(await SqliteLog.open(Path(folder) / "log.sqlite3")) as log:
            events = [record.event for record in records]
            one_by_one = await _append(log, events, 1, appends)
            in_steps = await _append(log, events, 1 + 2 * SAMPLE, appends)
            head = await log.head()
            await log.append(events[head.seq + 1 :], expected=head)

            began = time.perf_counter()
            standings = await replay(log)
            replayed = time.perf_counter() - began

            state = standings.to_snapshot()
            await log.save_snapshot(Snapshot(standings.head, state))
            began = time.perf_counter()
            await replay(log)
            resumed = time.perf_counter() - began
    return [
        Row("append", one_by_one * 1_000, "ms", note="one event, on disk when it returns"),
        Row("append a step", in_steps * 1_000, "ms", note=f"{1 + 2 * SAMPLE} events at once"),
        Row("replay", len(records) / replayed, "events/s", note="read, hashed, parsed, folded"),
        Row("resume", resumed * 1_000, "ms", note=f"from a snapshot of {len(state) / 1024:,.0f} KiB"),
    ]


async def _append(log: SqliteLog, events: Sequence[Event], size: int, appends: int) -> float:
    """Seconds per append of ``size`` events."""
    head = await log.head()
    began = time.perf_counter()
    for _ in range(appends):
        last = (await log.append(events[head.seq + 1 : head.seq + 1 + size], expected=head))[-1]
        head = Head(last.seq, last.hash)
    return (time.perf_counter() - began) / appends
