"""The public audit: events a second, from the files of segments, with every hash, draw, score, weight and evidence."""

from __future__ import annotations

import itertools
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import anyio
from bittensor.keyfiles import Keypair

from benchmarks.row import Row
from benchmarks.written_log import Life
from targon.audit import Exporter, Wanted, audit_folder
from targon.ledger import Head, SqliteLog
from targon.ledger.port import EMPTY
from targon.protocol.profile import STANDARD

PROVERS = 64
USERS_PER_BLOCK = 500
"""About 40 requests a second in blocks of 12 seconds."""
CHALLENGES_PER_BLOCK = 10
INTERVAL = 30
"""Blocks."""
RISE = 6 * INTERVAL
"""Blocks in which provers rise, with a tenth of the users."""


def run(quick: bool) -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        records = anyio.run(_write, Path(folder), 120 if quick else 600)
        began = time.perf_counter()
        report, _ = audit_folder(Path(folder) / "segments", wanted=Wanted(signatures=0))  # made up
        took = time.perf_counter() - began
        size = sum(path.stat().st_size for path in (Path(folder) / "segments").glob("*.jsonl"))
    assert report.exact, report.faults.kept[:3]
    assert report.records == records
    mix = f"{records:,} events, {size / records:,.0f} B each, {PROVERS} provers"
    checked = (
        f"{report.draws.routes + report.draws.audits:,} draws, {report.evidence_checked:,} verdicts' evidence and "
        f"{report.weights_checked} weight vectors computed again"
    )
    return [Row("audit", records / took, "events/s", ">= 100,000 events/s", f"from file; {mix}; {checked}")]


async def _write(folder: Path, blocks: int) -> int:
    """A log of so many blocks, as segments; returns how many records they hold."""
    verifier = Keypair.create_from_uri("//Bob")
    provers = [Keypair.create_from_uri(f"//Prover{number}") for number in range(PROVERS)]
    # Minima of successes that are met at once: provers rise a tier in each interval, so that soon about as few
    # inferences are audited as of provers that have been there for long.
    profile = STANDARD.model_copy(
        update={
            "interval_blocks": INTERVAL,
            "probation_tokens": 640,
            "success_minima": (0,) * 11,
        }
    )
    life = Life(
        verifier,
        provers,
        per_block=USERS_PER_BLOCK // 10,
        challenges=CHALLENGES_PER_BLOCK,
        profile=profile,
        signed=False,
        weights_every=INTERVAL,
        keep=False,
    )
    async with aclosing(await SqliteLog.open(folder / "log.sqlite")) as log:
        head = EMPTY
        for block, made in enumerate(itertools.chain([life.begin()], life.blocks(RISE + blocks))):
            if block == RISE:
                life.per_block = USERS_PER_BLOCK
            appended = await log.append([record.event for record in made], expected=head)
            head = Head(appended[-1].seq, appended[-1].hash)
        assert life.standings.opened is not None
        exporter = Exporter(folder / "segments", log, verifier)
        return (await exporter.export(life.standings.opened, life.standings.released)).records
