"""What the log says against what a chain holds: anchored heads, weights, and whether it is that chain at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.written_log import Life
from targon.audit import Report, Wanted, audit_folder, compare_with_chain
from targon.chain import ChainSettings, EmbeddedChain
from targon.protocol.primitives import Digest
from tests.audit.world import PROVERS, VERIFIER, Published

pytestmark = pytest.mark.anyio


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[EmbeddedChain]:
    chain = EmbeddedChain.create(
        tmp_path / "chain.sqlite", ChainSettings(block_seconds=0.05, weights_rate_limit=0)
    )
    chain.register(VERIFIER)
    chain.add_stake(VERIFIER, 10_000.0)
    for keypair in PROVERS:
        chain.register(keypair)
    yield chain
    await chain.aclose()


async def audited(chain: EmbeddedChain, published: Published, **changes: object) -> tuple[Report, Wanted]:
    """An audit's report, as of a log of this chain."""
    wanted = Wanted()
    report, _ = audit_folder(published.folder, wanted=wanted)
    info = await chain.info()
    report.genesis, report.netuid = info.genesis, info.netuid
    for name, value in changes.items():
        setattr(report, name, value)
    return report, wanted


async def test_a_log_of_another_chain_is_a_strangers(chain: EmbeddedChain, untouched: Published) -> None:
    report, wanted = await audited(chain, untouched, netuid=77)
    await compare_with_chain(chain, report, wanted)
    assert set(report.faults.counts) == {"stranger"}


async def test_weights_and_head_on_chain_are_the_logs(chain: EmbeddedChain, untouched: Published) -> None:
    report, wanted = await audited(chain, untouched)
    await chain.set_weights(VERIFIER, report.weights, 0)
    await chain.anchor(VERIFIER, next(reversed(wanted.heads)))
    await compare_with_chain(chain, report, wanted)
    assert report.exact
    assert len(report.chain) == 2


async def test_other_weights_on_chain_are_named(chain: EmbeddedChain, untouched: Published) -> None:
    report, wanted = await audited(chain, untouched)
    first = min(report.weights)
    await chain.set_weights(VERIFIER, report.weights | {first: report.weights[first] - 1}, 0)
    await compare_with_chain(chain, report, wanted)
    (fault,) = report.faults.kept
    assert (fault.kind, fault.where) == ("chain", "weights")
    assert f"for UID {first}" in fault.got


async def test_a_head_on_chain_that_the_log_does_not_have_is_a_fork(
    chain: EmbeddedChain, untouched: Published
) -> None:
    report, wanted = await audited(chain, untouched)
    await chain.set_weights(VERIFIER, report.weights, 0)
    await chain.anchor(VERIFIER, Digest("77" * 32))
    await compare_with_chain(chain, report, wanted)
    assert set(report.faults.counts) == {"forked"}


async def test_what_the_chain_holds_of_later_is_said_to_be_unchecked(
    chain: EmbeddedChain, untouched: Published
) -> None:
    report, wanted = await audited(chain, untouched)
    wanted.heads, wanted.weights_block = {}, None
    await chain.anchor(VERIFIER, Digest("77" * 32))
    await compare_with_chain(chain, report, wanted)
    assert report.exact
    assert any("not published yet, or left out" in note for note in report.notes)


def test_every_interval_of_the_audited_part_has_its_head(life: Life, untouched: Published) -> None:
    wanted = Wanted()
    report, _ = audit_folder(untouched.folder, wanted=wanted)
    heads = {
        record.hash: record.event.interval
        for record in life.records[: report.records]
        if record.event.kind == "interval_opened"
    }
    assert wanted.heads == heads
