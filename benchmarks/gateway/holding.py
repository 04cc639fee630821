"""What streams cost that are only held: many that are idle, and some whose clients don't read."""

from __future__ import annotations

import asyncio

import uvloop

from benchmarks.gateway.ours import Network
from benchmarks.gateway.processes import allow_open_files, get, memory_mb
from benchmarks.gateway.streams import held
from benchmarks.row import Row

IDLE = 10_000
IDLE_QUICK = 1_000
STALLED = 200
LONG = 4_000
"""Tokens of an answer that nobody reads: about a megabyte of events."""
IDLE_S = 15.0
"""Between two tokens of an idle stream: a prover that is silent for 20 s is given up."""
SPARE_FILES = 100
"""Of a process that holds streams, which takes two for each."""
SETTLE_S = 5.0
STALL_S = 20.0


def run(ours: Network, *, quick: bool) -> list[Row]:
    """Measure both."""
    rows = []
    try:
        rows += uvloop.run(_idle(ours, IDLE_QUICK if quick else min(IDLE, _most())))
        rows += uvloop.run(_stalled(ours))
    finally:
        get(ours.engine_port, "/pace?")
    return rows


def _most() -> int:
    """How many streams a process may hold by its limit of open files."""
    return (allow_open_files() - SPARE_FILES) // 2


async def _idle(ours: Network, count: int) -> list[Row]:
    """Streams whose first token came, and whose next ones come seldom."""
    get(ours.engine_port, f"/pace?each={IDLE_S}")
    verifier, prover = ours.processes["verifier"], ours.processes["prover"]
    before = memory_mb(verifier)
    with held() as streams:
        await streams.open(ours.gateway, count, max_tokens=16)
        await asyncio.sleep(SETTLE_S)
        note = f"{streams.open_now:,} open, {streams.refused} refused; {before:.0f} MB before, the prover {{:.0f}} MB"
        whole = memory_mb(verifier)
        prover_mb = memory_mb(prover)
    await asyncio.sleep(SETTLE_S)
    return [
        Row(
            f"{count:,} idle streams, the gateway's process",
            whole,
            "MB",
            "<= 1,500 MB",
            note.format(prover_mb),
        )
    ]


async def _stalled(ours: Network) -> list[Row]:
    """Clients that ask for long answers and read nothing of them."""
    get(ours.engine_port, f"/pace?tokens={LONG}")
    verifier = ours.processes["verifier"]
    before = peak = memory_mb(verifier)
    with held() as streams:
        await streams.open(ours.gateway, STALLED, max_tokens=LONG, read=False)
        for _ in range(int(STALL_S)):
            await asyncio.sleep(1.0)
            peak = max(peak, memory_mb(verifier))
    each = (peak - before) / STALLED
    note = f"{STALLED} clients, {LONG:,} tokens each; {before:.0f} MB before, at most {peak:.0f} MB in {STALL_S:g} s"
    return [Row("a client that stops reading, at most", each, "MB", "<= 1 MB", note)]
