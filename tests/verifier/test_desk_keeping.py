"""What outlives an inference: its receipt, its audit, and what is kept for that, over stops and trouble of our own."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from targon.ledger import Answered, Attempt, Withdrawn
from targon.protocol import countersignatures
from targon.protocol.primitives import Digest
from targon.transport.errands import (
    NotReady,
)
from targon.verifier.retained import FILE
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import World
from tests.verifier.office import SECRET_WORDS, office, order

pytestmark = pytest.mark.anyio


async def test_an_audited_inference_is_judged_and_its_content_then_forgotten(world: World) -> None:
    async with world.prover("Honest") as honest, office(world) as here:
        while True:
            errand, settled = await here.serve()
            if await here.is_audited(settled):
                break
        verdict = await here.verdict_on(errand)
    assert (verdict.outcome, verdict.method) == ("pass", "divergence")
    assert verdict.evidence_after is not None
    assert honest == errand.request.prover


async def test_nothing_that_was_said_can_be_read_in_the_data_folder(world: World) -> None:
    world.reference.pause_s = 0.0
    async with world.prover("Honest"), office(world) as here:
        texts = []
        for _ in range(10):
            errand = await here.take()
            answer = await here.send(errand)
            world.reference.down = True  # so that audits wait, and what they need stays
            texts.append(answer.response.completion.text)
            await here.desk.answered(errand, answer)
            world.reference.down = False
        stored = b"".join(path.read_bytes() for path in world.folder.iterdir() if path.is_file())
    assert (world.folder / FILE).stat().st_mode & 0o077 == 0
    assert SECRET_WORDS.encode() not in stored
    assert not any(text.encode() in stored for text in texts if len(text) > 8)


async def test_a_receipt_is_found_at_once_and_again_after_a_restart(world: World) -> None:
    async with world.prover("Honest"):
        async with office(world) as here:
            errand, settled = await here.serve()
            found = await here.desk.receipt(errand.receipt_id)
            assert await here.desk.receipt("ab" * 32) is None
            assert await here.desk.receipt("no digest") is None
        assert found is not None
        assert found.receipt.body.request_digest == errand.receipt_id
        async with office(world) as again:
            await again.take()
            later = await again.desk.receipt(errand.receipt_id)
    assert later is not None
    assert later.receipt == found.receipt
    countersignatures.check(later.countersignature, later.receipt)
    assert later.countersignature.body.record == settled.record
    assert later.countersignature.body.record_hash == settled.record_hash


async def test_a_good_answer_is_accepted_while_our_own_engine_is_down(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        errand = await here.take()
        answer = await here.send(errand)
        world.reference.down = True
        settled = await here.desk.answered(errand, answer)
        world.reference.down = False
    assert settled.receipt_id == errand.receipt_id


async def test_a_stopped_verifier_takes_nothing_and_charges_nobody_for_what_was_out(world: World) -> None:
    async with world.prover("Honest"):
        async with office(world) as here:
            errand = await here.take()
        with pytest.raises(NotReady):
            await here.desk.take(order())
        await here.desk.withdrawn(errand, "user_left")
    verdict = await here.verdict_on(errand)
    assert (verdict.outcome, verdict.method) == ("inconclusive", "delivery")


async def test_an_audit_goes_on_after_a_restart_from_what_was_kept(world: World) -> None:
    async with world.prover("Honest"):
        async with office(world) as here:
            while True:
                errand = await here.take()
                answer = await here.send(errand)
                world.reference.down = True
                settled = await here.desk.answered(errand, answer)
                world.reference.down = False
                if await here.is_audited(settled):
                    world.reference.down = True
                    break
        world.reference.down = False
        async with office(world) as again:
            verdict = await again.verdict_on(errand)
    assert verdict.outcome == "pass", verdict.reason


async def test_an_answer_of_the_model_that_was_changed_meanwhile_charges_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.prover("Honest"):
        async with office(world) as here:
            monkeypatch.setattr(here.desk._audits, "_engine", TinyEngine(down=True))
            while True:
                errand, settled = await here.serve()
                if await here.is_audited(settled):
                    break
        changed = replace(TinyEngine().identity, model_digest=Digest("e" * 64))
        monkeypatch.setattr(TinyEngine, "identity", changed)
        async with office(world) as again:
            verdict = await again.verdict_on(errand)
    assert (verdict.outcome, verdict.evidence_after) == ("inconclusive", None)
    assert "runs another model now" in verdict.reason


async def test_an_audit_whose_content_was_lost_charges_nobody(world: World) -> None:
    async with world.prover("Honest"):
        async with office(world) as here:
            while True:
                errand = await here.take()
                answer = await here.send(errand)
                world.reference.down = True
                settled = await here.desk.answered(errand, answer)
                if await here.is_audited(settled):
                    break
                world.reference.down = False
        for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
            (world.folder / name).unlink(missing_ok=True)
        world.reference.down = False
        async with office(world) as again:
            verdict = await again.verdict_on(errand)
    assert verdict.outcome == "inconclusive"
    assert "lost the answer" in verdict.reason


async def test_inferences_run_on_over_an_intervals_end(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        errand = await here.take()
        answer = await here.send(errand)
        await here.events_until(
            lambda events: any(e.kind == "interval_closed" for e in events[errand.request.attempt_number :])
        )
        settled = await here.desk.answered(errand, answer)
        events = await world.events()
    assert isinstance(events[settled.record], Answered)
    turns = [at for at, event in enumerate(events) if event.kind == "interval_closed"]
    assert all(events[at + 1].kind == "interval_opened" for at in turns), "one append: one is always open"


async def test_an_answer_that_cannot_be_kept_for_its_audit_is_not_given_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with world.prover("Honest"), office(world) as here:
        await here.serve()
        monkeypatch.setattr("targon.verifier.retained.Retained._keep", full)
        while True:
            errand = await here.take()
            try:
                await here.desk.answered(errand, await here.send(errand))
            except NotReady:
                break
        verdict = await here.verdict_on(errand)
        monkeypatch.undo()
    assert (verdict.outcome, verdict.replied) == ("inconclusive", True)
    assert "could not keep the answer" in verdict.reason


async def test_an_errand_that_nobody_settles_does_not_stay_open_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.verifier.desk.ERRAND_S", 0.1)
    async with world.prover("Honest"), office(world) as here:
        errand = await here.take()
        number = errand.request.attempt_number
        events = await here.events_until(
            lambda events: any(isinstance(e, Withdrawn) and e.attempt == number for e in events)
        )
    assert any(isinstance(event, Withdrawn) and event.why == "user_left" for event in events)


async def test_an_audit_of_work_that_does_not_count_leaves_no_evidence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.prover("Honest"), office(world) as here:
        monkeypatch.setattr(
            here.desk._sizes, "covers", lambda *_: False
        )  # as where its prompt was not counted
        while True:
            errand, settled = await here.serve()
            if await here.is_audited(settled):
                break
        verdict = await here.verdict_on(errand)
        asked = (await world.events())[errand.request.attempt_number]
    assert isinstance(asked, Attempt)
    assert not asked.counted
    assert (verdict.outcome, verdict.observed, verdict.evidence_after) == ("pass", None, None)
