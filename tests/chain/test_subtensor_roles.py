"""A verifier and a prover at work on a real runtime: found by its axon, judged, weighed, anchored.

Collected where a node is named.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair

from targon.ledger import (
    Event,
    HeadAnchored,
    IntervalOpened,
    Record,
    SqliteLog,
    Verdict,
    WeightsProposed,
    WeightsSet,
)
from targon.protocol.primitives import Hotkey
from targon.protocol.profile import DEMO
from targon.prover import Prover, ProverSettings
from targon.transport import Deadlines, NeuronClient
from targon.verifier import Journal, Verifier, VerifierSettings
from tests.chain.subtensor_world import SubtensorWorld
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import CALIBRATION, MASTER_SECRET, NumberedPassages

pytestmark = pytest.mark.anyio

VERIFIER, PROVER = Keypair.create_from_uri("//verifier"), Keypair.create_from_uri("//prover")
PROFILE = DEMO.model_copy(update={"interval_blocks": 12})
LOOPBACK = "127.0.0.2"
"""The chain takes this one; it refuses 127.0.0.1."""
WAIT_S = 240.0


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SubtensorWorld]:
    built = await SubtensorWorld.create(tmp_path)
    yield built
    await built.aclose()


async def run_verifier(node: SubtensorWorld, log_path: Path, until: type[Event]) -> list[Record]:
    """Run a verifier, with blocks passing, until its log holds an event of a kind; returns its records."""
    log = await SqliteLog.open(log_path)
    waits = Deadlines(first_byte_s=20.0, between_bytes_s=20.0, total_s=20.0)
    async with NeuronClient(deadlines=waits) as client:
        verifier = Verifier(
            chain=node.chain,
            journal=await Journal.open(log),
            engine=TinyEngine(),
            client=client,
            inputs=NumberedPassages(),
            signer=VERIFIER,
            profile=PROFILE,
            settings=VerifierSettings(min_tokens=32, max_tokens=40, query_tokens=4),
            master_secret=MASTER_SECRET,
            random_bytes=os.urandom,
            calibration=CALIBRATION,
            folder=log_path.parent,
        )
        with anyio.fail_after(WAIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(verifier.run)
                while True:
                    await node.advance(1)
                    await anyio.sleep(1.0)
                    if any([isinstance(record.event, until) async for record in log.read()]):
                        break
                verifier.stop()
    records = [record async for record in log.read()]
    await log.aclose()
    return records


@pytest.mark.parametrize("commit_reveal", [False, True])
async def test_a_verifier_finds_a_prover_judges_it_and_sets_its_weights(
    node: SubtensorWorld, tmp_path: Path, commit_reveal: bool
) -> None:
    uid = await node.register(VERIFIER)
    target = await node.register(PROVER)
    await node.stake(VERIFIER, 100.0)
    if commit_reveal:
        await node.use_commit_reveal()
    prover = Prover(
        engine=TinyEngine(),
        chain=node.chain,
        signer=PROVER,
        settings=ProverSettings(host=LOOPBACK, port=0),
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: prover.run(task_status=task_status))
        neuron = (await node.chain.metagraph()).by_uid(target)
        assert neuron is not None
        assert neuron.axon is not None
        assert neuron.axon.host == LOOPBACK
        records = await run_verifier(node, tmp_path / "log.sqlite", WeightsSet)
        prover.stop()
    events = [record.event for record in records]
    assert {event.outcome for event in events if isinstance(event, Verdict)} <= {"pass", "inconclusive"}
    assert any(isinstance(event, Verdict) and event.outcome == "pass" for event in events)
    done = next(event for event in events if isinstance(event, WeightsSet))
    assert done.proposal is not None
    proposed = events[done.proposal]
    assert isinstance(proposed, WeightsProposed)
    assert (proposed.commit is not None) == commit_reveal
    assert dict(done.weights) == {target: 65_535}
    assert await node.chain.weights_of(uid) == {target: 65_535}
    heads = [record.hash for record in records if isinstance(record.event, IntervalOpened)]
    assert any(isinstance(event, HeadAnchored) for event in events)
    anchor = await node.chain.anchor_of(Hotkey(VERIFIER.ss58_address))
    assert anchor is not None
    assert anchor.digest in heads
