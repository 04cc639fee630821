"""A verifier at work: real HTTP, a real chain file, a real log; the engine is made of letters."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import anyio
import pytest

from targon.chain import EmbeddedChain, NotRegistered
from targon.ledger import (
    Attempt,
    BlocksSkipped,
    CalibrationAdopted,
    Event,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ProverConvicted,
    ProverJoined,
    SqliteLog,
    Standings,
    StepClosed,
    Verdict,
    WeightsNotSet,
    WeightsProposed,
    WeightsSet,
    replay,
)
from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.primitives import AttemptNumber, Hotkey
from targon.protocol.profile import STANDARD
from targon.verification import EvidenceState, Observations, advance, bets_of
from targon.verifier import LogOfAnother
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import CALIBRATION, MASTER_SECRET, VERIFIER, World

pytestmark = pytest.mark.anyio


def verdicts(events: list[Event]) -> list[Verdict]:
    return [event for event in events if isinstance(event, Verdict)]


async def standings_of(world: World) -> Standings:
    log = await SqliteLog.open(world.log_path, read_only=True)
    try:
        return await replay(log)
    finally:
        await log.aclose()


def steps(events: list[Event]) -> int:
    return sum(isinstance(event, StepClosed) for event in events)


async def test_an_honest_prover_passes_and_one_with_other_noise_fails(world: World):
    async with world.prover("Honest") as honest, world.prover("Cheat", TinyEngine(wrong=True)) as cheat:
        events = await world.verify_until(lambda events: steps(events) >= 2)
    whose = {place: event.prover for place, event in enumerate(events) if isinstance(event, Attempt)}
    outcomes = {whose[v.attempt]: set[str]() for v in verdicts(events)}
    for verdict in verdicts(events):
        if verdict.method != "delivery":  # the step that was running when the verifier was stopped
            outcomes[whose[verdict.attempt]].add(f"{verdict.outcome} {verdict.method}")
    assert outcomes == {honest: {"pass divergence"}, cheat: {"fail divergence"}}


async def test_the_evidence_convicts_a_cheat_and_the_log_says_by_what(world: World):
    async with world.prover("Honest") as honest, world.prover("Cheat", TinyEngine(wrong=True)) as cheat:
        events = await world.verify_until(
            lambda events: (
                any(isinstance(event, ProverConvicted) for event in events)
                and any(
                    verdict.outcome == "pass" for verdict in verdicts(events)
                )  # the honest one answered, too
            )
        )
    place = next(at for at, event in enumerate(events) if isinstance(event, ProverConvicted))
    conviction, before = events[place], events[place - 1]
    assert isinstance(conviction, ProverConvicted)
    assert isinstance(before, Verdict)
    assert (conviction.prover, conviction.attempt) == (cheat, before.attempt)
    assert conviction.log_e >= math.log(10_000)
    assert before.evidence_after is not None
    assert conviction.tokens <= EvidenceState.from_json(before.evidence_after).tokens
    adopted = [event for event in events if isinstance(event, CalibrationAdopted)]
    assert [event.calibration for event in adopted] == [conviction.calibration] == [CALIBRATION.digest()]
    standings = await standings_of(world)
    convicted, other = standings.prover(cheat), standings.prover(honest)
    assert convicted is not None
    assert other is not None
    assert convicted.convictions >= 1  # there may have been time for another
    assert (convicted.score, convicted.on_probation) == (0.0, True)
    assert (other.convictions, other.evidence is not None) == (0, True)


async def test_anyone_can_compute_the_evidence_again_from_the_log(world: World):
    async with world.prover("Honest") as honest:
        events = await world.verify_until(lambda events: steps(events) >= 4)
    state, bets = EvidenceState(), bets_of(CALIBRATION.bands[0])
    noted = [event for event in verdicts(events) if event.observed is not None]
    assert len(noted) >= 3
    for event in noted:
        assert event.observed is not None
        state = advance(state, Observations.unpack(event.observed), bets)
        assert state.to_json() == event.evidence_after
    standing = (await standings_of(world)).prover(honest)
    assert standing is not None
    assert standing.evidence == state.to_json()
    assert standing.verified_tokens == state.tokens


async def test_the_evidence_goes_on_after_a_restart(world: World):
    async with world.prover("Honest") as honest:
        await world.verify_until(lambda events: steps(events) >= 2)
        before = (await standings_of(world)).prover(honest)
        await world.verify_until(lambda events: steps(events) >= 5)
    after = (await standings_of(world)).prover(honest)
    assert before is not None
    assert after is not None
    assert before.evidence is not None
    assert after.evidence is not None
    assert after.evidence["completions"] > before.evidence["completions"] > 0


async def test_without_a_calibration_nobody_passes_and_nobody_is_charged(world: World):
    world.calibration = None
    async with world.prover("Honest"), world.prover("Cheat", TinyEngine(wrong=True)):
        events = await world.verify_until(lambda events: steps(events) >= 2)
    assert {verdict.outcome for verdict in verdicts(events)} == {"inconclusive"}
    assert any("no calibration says" in verdict.reason for verdict in verdicts(events))
    assert not any(isinstance(event, CalibrationAdopted | ProverConvicted) for event in events)


async def test_a_passed_verdict_carries_the_provers_receipt_and_its_speed(world: World):
    async with world.prover("Honest", TinyEngine(pause_s=0.002)) as honest:
        events = await world.verify_until(lambda events: steps(events) >= 1)
    first = verdicts(events)[0]
    assert first.receipt is not None
    assert first.receipt.body.prover == honest
    assert first.tokens_per_s is not None
    assert 0 < first.tokens_per_s < 500
    assert first.tokens > 0


async def test_an_offline_prover_fails_without_a_reply(world: World):
    await world.offline_prover("Gone")
    events = await world.verify_until(lambda events: len(verdicts(events)) >= 1)
    first = verdicts(events)[0]
    assert (first.outcome, first.method, first.replied) == ("fail", "delivery", False)
    assert "no connection" in first.reason


async def test_a_prover_that_never_finishes_fails_by_its_own_timeout(world: World):
    world.timeout_s = 1.0
    async with world.prover("Slow", TinyEngine(pause_s=0.5)):
        events = await world.verify_until(lambda events: len(verdicts(events)) >= 1)
    first = verdicts(events)[0]
    assert (first.outcome, first.method) == ("fail", "delivery")
    assert "no answer in time" in first.reason


async def test_nobody_is_charged_while_the_reference_engine_is_down(world: World):
    async with world.prover("Honest", TinyEngine(pause_s=0.02)):
        with anyio.fail_after(30):
            async with world.verifier() as verifier, anyio.create_task_group() as group:
                group.start_soon(verifier.run)
                while not world.log_path.exists() or not any(
                    isinstance(event, Attempt) for event in await world.events()
                ):
                    await anyio.sleep(0.02)
                world.reference.down = True
                while not verdicts(await world.events()):
                    await anyio.sleep(0.05)
                verifier.stop()
    first = verdicts(await world.events())[0]
    assert first.outcome == "inconclusive"
    assert "the tiny engine is down" in first.reason


async def test_silence_is_not_charged_while_the_reference_engine_is_down(world: World):
    """The canary is our own: a prover's silence at such a time proves nothing."""
    world.timeout_s = 1.5
    async with world.prover("Slow", TinyEngine(pause_s=0.5)):
        with anyio.fail_after(30):
            async with world.verifier() as verifier, anyio.create_task_group() as group:
                group.start_soon(verifier.run)
                while not world.log_path.exists() or not any(
                    isinstance(event, Attempt) for event in await world.events()
                ):
                    await anyio.sleep(0.02)
                world.reference.down = True
                while not verdicts(await world.events()):
                    await anyio.sleep(0.05)
                verifier.stop()
    first = verdicts(await world.events())[0]
    assert (first.outcome, first.method) == ("inconclusive", "delivery")
    assert first.reason.startswith("our own side was out of order")


async def test_every_seed_and_secret_can_be_derived_again_from_the_log(world: World):
    engine = TinyEngine()
    async with world.prover("Honest", engine) as prover:
        events = await world.verify_until(lambda es: sum(isinstance(e, IntervalClosed) for e in es) >= 1)
    opened = [event for event in events if isinstance(event, IntervalOpened)]
    closed = [event for event in events if isinstance(event, IntervalClosed)]
    assert opened[0].interval == closed[0].interval
    secret = bytes.fromhex(closed[0].secret)
    assert draws.commitment(secret) == opened[0].commitment
    first = next(place for place, event in enumerate(events) if isinstance(event, Attempt))
    seed = draws.request_seed(secret, AttemptNumber(first), public_key(prover))
    assert int(engine.asked[0].sampling.seed, 16) == seed


async def test_an_attempt_is_logged_before_it_is_sent_and_has_one_verdict(world: World):
    async with world.prover("A"), world.prover("B"):
        events = await world.verify_until(lambda events: steps(events) >= 3)
    attempts = [place for place, event in enumerate(events) if isinstance(event, Attempt)]
    judged = [event.attempt for event in verdicts(events)]
    assert sorted(judged) == attempts
    for place, event in enumerate(events):
        if isinstance(event, Verdict):
            assert event.attempt < place


async def test_weights_are_set_on_chain_once_there_is_something_to_say(world: World):
    async with world.prover("Honest") as honest:
        events = await world.verify_until(lambda es: any(isinstance(e, WeightsSet) for e in es))
    assert any(isinstance(event, WeightsNotSet) for event in events), "nobody had earned anything at first"
    metagraph = await world.chain.metagraph()
    prover = metagraph.by_hotkey(honest)
    assert prover is not None
    assert await world.chain.weights_of(metagraph.neurons[0].uid) == {prover.uid: 65_535}


async def test_weights_are_committed_to_and_revealed_where_the_subnet_asks_for_it(world: World):
    world.chain.set_commit_reveal(1)
    async with world.prover("Honest") as honest:
        events = await world.verify_until(lambda es: any(isinstance(e, WeightsSet) for e in es))
    at, done = next((at, event) for at, event in enumerate(events) if isinstance(event, WeightsSet))
    assert done.proposal is not None
    proposed = events[done.proposal]
    assert isinstance(proposed, WeightsProposed)
    assert (proposed.weights, proposed.version_key) == (done.weights, done.version_key)
    interval = proposed.block // world.profile.interval_blocks
    info = await world.chain.info()
    secret = draws.interval_secret(MASTER_SECRET, bytes.fromhex(info.genesis), info.netuid, interval)
    salt = draws.weights_salt(secret, done.proposal)
    verifier = Hotkey(VERIFIER.ss58_address)
    expected = world.chain.commit_digest(verifier, dict(proposed.weights), proposed.version_key, salt)
    assert proposed.commit == expected, "anyone can check the commit once the interval's secret is revealed"
    assert done.block // 3 > proposed.block // 3, "an epoch later"
    metagraph = await world.chain.metagraph()
    prover = metagraph.by_hotkey(honest)
    assert prover is not None
    assert dict(done.weights) == {prover.uid: 65_535}
    standings = await standings_of(world)
    opened = [place for place, event in enumerate(events[:at]) if isinstance(event, IntervalOpened)]
    assert standings.released in opened, "what the weights followed from may be published once they stand"


async def test_each_intervals_head_is_anchored_on_chain(world: World):
    async with world.prover("Honest"):
        events = await world.verify_until(lambda es: sum(isinstance(e, HeadAnchored) for e in es) >= 2)
    log = await SqliteLog.open(world.log_path, read_only=True)
    heads = [record.hash async for record in log.read() if isinstance(record.event, IntervalOpened)]
    await log.aclose()
    anchored = [event.head for event in events if isinstance(event, HeadAnchored)]
    assert anchored == heads[: len(anchored)]
    found = await world.chain.anchor_of(Hotkey(VERIFIER.ss58_address))
    assert found is not None
    assert found.digest in heads


async def test_an_unregistered_verifier_is_told_the_command_that_registers_it(world: World, tmp_path: Path):
    world.chain = EmbeddedChain.create(tmp_path / "other.sqlite")
    with pytest.raises(NotRegistered, match="targon chain register"):
        async with world.verifier() as verifier:
            await verifier.run()
    await world.chain.aclose()


async def test_weights_can_be_left_to_others(world: World):
    world.settings = world.settings.model_copy(update={"disable_set_weights": True})
    async with world.prover("Honest"):
        events = await world.verify_until(lambda events: steps(events) >= 3)
    assert not any(isinstance(event, WeightsSet | WeightsProposed) for event in events)
    assert any(
        isinstance(event, WeightsNotSet) and "--neuron.disable_set_weights" in event.reason
        for event in events
    )


async def test_no_more_provers_are_challenged_in_a_block_than_the_sample_size(world: World):
    world.settings = world.settings.model_copy(update={"sample_size": 2})
    for name in ("A", "B", "C", "D"):
        await world.offline_prover(name)
    events = await world.verify_until(lambda events: steps(events) >= 3)
    per_block = Counter(
        event.block for event in events if isinstance(event, Attempt) and event.purpose == "challenge"
    )
    assert set(per_block.values()) == {2}


async def test_a_staked_validator_is_not_taken_for_a_prover(world: World):
    whale = await world.offline_prover("Whale")
    small = await world.offline_prover("Small")
    world.chain.add_stake(whale, 5_000.0)
    world.chain.add_stake(small, 100.0)
    events = await world.verify_until(lambda events: steps(events) >= 1)
    assert {event.hotkey for event in events if isinstance(event, ProverJoined)} == {small}


async def test_blocks_that_pass_during_a_step_are_skipped_and_logged(world: World):
    async with world.prover("Slow", TinyEngine(pause_s=0.06)):
        events = await world.verify_until(lambda es: any(isinstance(e, BlocksSkipped) for e in es))
    skipped = next(event for event in events if isinstance(event, BlocksSkipped))
    stepped = [event.block for event in events if isinstance(event, StepClosed)]
    assert all(block not in stepped for block in range(skipped.first, skipped.last + 1))


async def test_a_restarted_verifier_goes_on_from_its_log(world: World):
    async with world.prover("Honest"):
        before = await world.verify_until(lambda events: steps(events) >= 2)
        after = await world.verify_until(lambda events: steps(events) >= steps(before) + 2)
    assert after[: len(before)] == before
    assert sum(isinstance(event, LogOpened) for event in after) == 1
    log = await SqliteLog.open(world.log_path, read_only=True)
    standings = await replay(log)
    await log.aclose()
    (prover,) = standings.provers()
    assert prover.total_successes == sum(verdict.outcome == "pass" for verdict in verdicts(after))


async def test_a_log_of_another_network_or_profile_is_refused(world: World):
    await world.offline_prover("A")
    await world.verify_until(lambda events: steps(events) >= 1)
    world.profile = STANDARD
    with pytest.raises(LogOfAnother, match="profile"):
        async with world.verifier() as verifier:
            await verifier.run()


async def test_another_secret_than_the_log_committed_to_is_told_at_the_start(world: World, monkeypatch):
    async with world.prover("Honest"):
        await world.verify_until(lambda events: steps(events) >= 1)
    monkeypatch.setattr("tests.verifier.conftest.MASTER_SECRET", bytes(32))
    with pytest.raises(LogOfAnother, match=r"restore the\s+file draws\.secret"):
        async with world.verifier() as verifier:
            await verifier.run()
