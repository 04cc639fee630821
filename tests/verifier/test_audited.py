"""What a real verifier wrote while it served users audits to exactly nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from targon.audit import Exporter, Wanted, audit_folder, compare_with_chain
from targon.ledger import Event, SqliteLog, WeightsSet, replay
from tests.verifier.conftest import VERIFIER, World
from tests.verifier.office import office, routed

pytestmark = pytest.mark.anyio


def released_beyond_three_intervals(events: list[Event]) -> bool:
    openings = [seq for seq, event in enumerate(events) if event.kind == "interval_opened"]
    fates = [event.proposal or 0 for event in events if isinstance(event, WeightsSet)]
    return len(openings) > 3 and max(fates, default=0) > openings[3]


async def test_a_real_verifiers_log_is_exact_down_to_its_weights_on_chain(
    world: World, tmp_path: Path
) -> None:
    async with world.prover("A"), world.prover("B"), office(world) as here:
        for _ in range(12):
            await here.serve()
        await here.events_until(released_beyond_three_intervals)
    log = await SqliteLog.open(world.log_path, read_only=True)
    standings = await replay(log)
    assert standings.opened is not None
    index = await Exporter(tmp_path / "segments", log, VERIFIER).export(standings.opened, standings.released)
    await log.aclose()
    assert index.segments > 3
    wanted = Wanted()
    report, _ = audit_folder(
        tmp_path / "segments", commit_digest=world.chain.commit_digest, wanted=wanted, answers=3
    )
    await compare_with_chain(world.chain, report, wanted)
    assert [str(fault) for fault in report.faults.kept] == []
    assert report.records == index.records
    assert routed(await world.events())
    assert report.draws.routes > 0
