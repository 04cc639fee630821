"""What a real verifier wrote while it served users audits to exactly nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest

from targon.audit import Exporter, Report, Wanted, audit_folder, compare_with_chain
from targon.audit.folding import CommitDigest
from targon.chain import ChainSettings, EmbeddedChain
from targon.ledger import Event, SqliteLog, WeightsProposed, WeightsSet, replay
from targon.protocol.primitives import Digest, Hotkey, Uid
from tests.verifier.conftest import BLOCK_SECONDS, VERIFIER, World
from tests.verifier.office import office, routed

pytestmark = pytest.mark.anyio


def released_beyond_three_intervals(events: list[Event]) -> bool:
    openings = [seq for seq, event in enumerate(events) if event.kind == "interval_opened"]
    fates = [event.proposal or 0 for event in events if isinstance(event, WeightsSet)]
    return len(openings) > 3 and max(fates, default=0) > openings[3]


async def audited(world: World, folder: Path, commit_digest: CommitDigest | None = None) -> Report:
    """What an audit says of all that is released of a world's log, and of its chain."""
    log = await SqliteLog.open(world.log_path, read_only=True)
    standings = await replay(log)
    assert standings.opened is not None
    index = await Exporter(folder, log, VERIFIER).export(standings.opened, standings.released)
    await log.aclose()
    wanted = Wanted()
    report, _ = audit_folder(folder, commit_digest=commit_digest or world.chain.commit_digest, wanted=wanted)
    await compare_with_chain(world.chain, report, wanted)
    assert report.records == index.records
    return report


@pytest.fixture
async def committing(tmp_path: Path) -> AsyncGenerator[World]:
    """A network whose weights are committed to first, and revealed an epoch later."""
    settings = ChainSettings(block_seconds=BLOCK_SECONDS, tempo=4, weights_rate_limit=1, reveal_epochs=1)
    chain = EmbeddedChain.create(tmp_path / "committing.sqlite", settings)
    chain.register(VERIFIER)
    chain.add_stake(VERIFIER, 10_000.0)
    yield World(tmp_path, chain)
    await chain.aclose()


async def test_a_real_verifiers_log_is_exact_down_to_its_weights_on_chain(
    world: World, tmp_path: Path
) -> None:
    async with world.prover("A"), world.prover("B"), office(world) as here:
        for _ in range(12):
            await here.serve()
        await here.events_until(released_beyond_three_intervals)
    report = await audited(world, tmp_path / "segments")
    assert [str(fault) for fault in report.faults.kept] == []
    assert report.segments > 3
    assert routed(await world.events())
    assert report.draws.routes > 0


async def test_weights_that_were_committed_to_and_revealed_audit_down_to_the_commits(
    committing: World, tmp_path: Path
) -> None:
    world = committing
    async with world.prover("A"), world.prover("B"), office(world) as here:
        for _ in range(4):
            await here.serve()
        events = await here.events_until(released_beyond_three_intervals)
    proposals = {seq: event for seq, event in enumerate(events) if isinstance(event, WeightsProposed)}
    stand = [event for event in events if isinstance(event, WeightsSet)]
    assert all(proposals[event.proposal or 0].commit for event in stand), "each was committed to first"
    report = await audited(world, tmp_path / "segments")
    assert [str(fault) for fault in report.faults.kept] == []
    assert report.commits_checked > 0
    assert report.weights_checked >= report.commits_checked

    def another(hotkey: Hotkey, weights: Mapping[Uid, int], version_key: int, salt: bytes) -> Digest:
        return world.chain.commit_digest(hotkey, {**weights, Uid(77): 1}, version_key, salt)

    other = await audited(world, tmp_path / "segments", commit_digest=another)
    assert other.faults.counts == {"commitment": report.commits_checked}, (
        "other weights don't fit the commits"
    )
