"""The desk: users' inferences taken and settled over real HTTP, in a real log."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import anyio
import pytest

from targon.engines import ModelIdentity
from targon.ledger import Answered, Attempt, SqliteLog, Standings, Verdict, Withdrawn
from targon.protocol import draws, routing
from targon.protocol.audits import OWN_LATEST_BLOCKS, is_drawn
from targon.protocol.keys import public_key
from targon.protocol.primitives import AttemptNumber, Block, Digest, Hotkey
from targon.transport import Answer, BadResponse, Disconnected, Refused, TransportError
from targon.transport.errands import (
    AnswerRefused,
    Errand,
    NobodyFree,
    NotReady,
    UnknownModel,
    Unservable,
)
from targon.verifier.challenges import Challenge
from targon.verifier.rates import AuditRates
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import MASTER_SECRET, World
from tests.verifier.office import office, order, own_inferences, routed

pytestmark = pytest.mark.anyio


class OfAnotherModel(TinyEngine):
    """Draws the same tokens, and says that its model is another."""

    @property
    def identity(self) -> ModelIdentity:
        return replace(super().identity, model_digest=Digest("e" * 64))


async def test_an_answer_is_acknowledged_once_the_log_holds_its_receipt(world: World) -> None:
    async with world.prover("Honest") as honest, office(world) as here:
        errand = await here.take()
        before = await world.events()
        number = errand.request.attempt_number
        assert routed(before)[number].request_digest == errand.receipt_id, "logged before it is sent"
        answer = await here.send(errand)
        settled = await here.desk.answered(errand, answer)
        record = (await world.events())[settled.record]
    assert isinstance(record, Answered)
    assert record.receipt == answer.response.receipt
    assert record.receipt.body.prover == honest
    assert settled.receipt_id == errand.receipt_id == record.receipt.body.request_digest


async def test_everything_that_was_drawn_can_be_drawn_again_from_the_log(world: World) -> None:
    async with world.prover("A"), world.prover("B"), office(world) as here:
        for _ in range(12):
            await here.serve()
    info = await world.chain.info()
    genesis = bytes.fromhex(info.genesis)
    log = await SqliteLog.open(world.log_path, read_only=True)
    history = [record async for record in log.read()]
    await log.aclose()
    answers = {e.attempt: e.audited for e in (record.event for record in history) if isinstance(e, Answered)}
    standings, rates, checked = Standings(), AuditRates(), 0
    for record in history:
        event, number = record.event, AttemptNumber(record.seq)
        if isinstance(event, Attempt) and event.route is not None:
            interval, prover = standings.interval, standings.prover(event.prover)
            assert interval is not None
            assert prover is not None
            secret = draws.interval_secret(MASTER_SECRET, genesis, info.netuid, interval)
            shares = standings.routes("tiny").items()
            drawn = routing.pick(draws.route_draw(secret, number, event.route.turn), shares)
            assert drawn == prover.uid
            draw = draws.audit_draw(secret, number, public_key(event.prover))
            assert answers[number] == is_drawn(draw, rates.of(prover)), "by the standings just before it"
            checked += 1
        standings.apply(record)
    assert checked == 12


async def test_a_users_inferences_are_told_apart_by_nothing_on_the_wire(world: World) -> None:
    engine = TinyEngine()
    async with world.prover("Honest", engine), office(world) as here:
        errand, _ = await here.serve(temperature=0.0, top_p=0.5, top_k=3)
        await here.events_until(lambda events: sum(isinstance(e, Verdict) for e in events) >= 3)
    assert errand.request.stream
    sampling = errand.request.sampling
    assert (sampling.dialect, sampling.top_p, sampling.top_k) == ("greedy", 1.0, 0)
    for task in engine.asked:
        assert (task.sampling.temperature == 0.0) == (task.sampling.dialect == "greedy")


async def test_an_own_inference_is_sent_audited_and_kept_where_no_user_asks(world: World) -> None:
    async with world.prover("Honest") as honest:
        events = await world.verify_until(
            lambda events: any(isinstance(e, Verdict) and e.attempt in own_inferences(events) for e in events)
        )
    own = own_inferences(events)
    assert {event.prover for event in own.values()} == {honest}
    assert all(e.audited for e in events if isinstance(e, Answered))


async def test_a_cheat_fails_its_audits_though_its_answers_were_delivered(world: World) -> None:
    async with world.prover("Cheat", TinyEngine(wrong=True)), office(world) as here:
        while True:
            errand, settled = await here.serve()
            if await here.is_audited(settled):
                break
        verdict = await here.verdict_on(errand)
    assert (verdict.outcome, verdict.method) == ("fail", "divergence")


async def test_an_answer_for_another_request_is_refused_and_charged(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        one, two = await here.take(), await here.take()
        answer = await here.send(one)
        with pytest.raises(AnswerRefused, match="receipt"):
            await here.desk.answered(two, answer)
        verdict = await here.verdict_on(two)
        await here.desk.answered(one, answer)
    assert (verdict.outcome, verdict.method, verdict.replied) == ("fail", "structure", True)


async def test_an_answer_of_another_model_is_refused_and_charged_asked_by_users_or_not(world: World) -> None:
    async with world.prover("Other", OfAnotherModel()), office(world) as here:
        errand = await here.take()
        answer = await here.send(errand)
        with pytest.raises(AnswerRefused, match="names a model with digest e"):
            await here.desk.answered(errand, answer)
        verdict = await here.verdict_on(errand)
        events = await here.events_until(
            lambda events: any(
                isinstance(e, Verdict) and getattr(events[e.attempt], "purpose", "") == "challenge"
                for e in events
            )
        )
    assert (verdict.outcome, verdict.method, verdict.replied) == ("fail", "structure", True)
    verdicts = [event for event in events if isinstance(event, Verdict)]
    assert {(each.outcome, each.method, each.receipt) for each in verdicts} == {("fail", "structure", None)}


async def test_text_that_is_not_what_the_token_ids_say_is_refused_and_charged(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        errand = await here.take()
        answer = await here.send(errand)
        lie = answer.response.completion.model_copy(update={"text": "buy this"})
        lied = Answer(answer.response.model_copy(update={"completion": lie}), answer.timing)
        with pytest.raises(AnswerRefused, match="not what the token ids say"):
            await here.desk.answered(errand, lied)


async def test_a_broken_answer_is_the_provers_fault_unless_our_canary_says_otherwise(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        errand = await here.take()
        gone = Disconnected(errand.axon, "the stream ended without its answer")
        assert await here.desk.failed(errand, gone) == "prover"
        assert (await here.verdict_on(errand)).outcome == "fail"
        errand = await here.take()
        world.reference.down = True
        assert await here.desk.failed(errand, BadResponse(errand.axon, "malformed", "no JSON")) == "ours"
        assert (await here.verdict_on(errand)).outcome == "inconclusive"
        world.reference.down = False


async def test_a_refusal_within_the_reported_capacity_is_charged_and_beyond_it_is_not(world: World) -> None:
    def full(errand: Errand) -> TransportError:
        return Refused(errand.axon, 503, "queue_full", "too much to do")

    async with world.prover("Honest"), office(world) as here:
        errand = await here.take()
        assert await here.desk.failed(errand, full(errand)) == "prover"
        loads = here.desk._loads
        errand = await here.take()
        loads.report({errand.request.prover: 0})
        assert await here.desk.failed(errand, full(errand)) == "nobody"
        events = await world.events()
    assert [event.why for event in events if isinstance(event, Withdrawn)] == ["busy"]


async def test_who_hangs_up_or_is_outrun_costs_nobody_anything(world: World) -> None:
    async with world.prover("A"), world.prover("B"), office(world) as here:
        first = await here.take()
        while True:
            try:
                second = await here.desk.take(order(), instead_of=first, tried=[Hotkey(first.request.prover)])
            except NobodyFree:
                await anyio.sleep(0.05)
            else:
                break
        await here.desk.withdrawn(first, "outrun")
        await here.desk.withdrawn(second, "user_left")
        await here.desk.withdrawn(second, "user_left")
        with pytest.raises(NotReady, match="ended already"):
            await here.desk.answered(second, await here.send(second))
        events = await world.events()
    hedge = routed(events)[second.request.attempt_number]
    assert hedge.route is not None
    assert hedge.route.instead_of == first.request.attempt_number
    assert second.request.prover != first.request.prover
    assert Counter(e.why for e in events if isinstance(e, Withdrawn)) == {"outrun": 1, "user_left": 1}


async def test_a_prover_has_no_more_to_do_than_it_takes_at_once(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        first = await here.take()
        takes = here.desk._loads.window(Hotkey(first.request.prover))
        for _ in range(takes - 1):
            await here.desk.take(order())
        with pytest.raises(NobodyFree, match="busy") as refused:
            await here.desk.take(order())
        assert refused.value.retry_after_s > 0
        await here.desk.withdrawn(first, "user_left")
        await here.desk.take(order())


async def test_what_cannot_be_served_is_said_by_name_and_not_logged(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        await here.desk.withdrawn(await here.take(), "user_left")
        before = len(routed(await world.events()))
        with pytest.raises(UnknownModel, match="expected one of: tiny"):
            await here.desk.take(order(model="gpt-9"))
        with pytest.raises(Unservable, match="temperature"):
            await here.desk.take(order(temperature=0.01))
        with pytest.raises(Unservable, match="100000 tokens together") as long:
            await here.desk.take(order(max_tokens=100_001))
        assert (long.value.parameter, long.value.code) == ("messages", "context_length_exceeded")
        assert len(routed(await world.events())) == before


async def test_work_beyond_what_is_calibrated_is_served_and_not_counted(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        usual = await here.take()
        hot = await here.take(temperature=1.9)
        events = await world.events()
        await here.desk.withdrawn(usual, "user_left")
        await here.desk.withdrawn(hot, "user_left")
    assert routed(events)[usual.request.attempt_number].counted
    assert not routed(events)[hot.request.attempt_number].counted


async def test_a_users_seed_changes_the_salt_and_nothing_that_is_drawn(world: World) -> None:
    async with world.prover("Honest"), office(world) as here:
        errand = await here.take(seed=7)
        await here.desk.withdrawn(errand, "user_left")
    info = await world.chain.info()
    interval = errand.request.block // world.profile.interval_blocks
    secrets = {
        draws.interval_secret(MASTER_SECRET, bytes.fromhex(info.genesis), info.netuid, at)
        for at in (interval - 1, interval)
        if at >= 0
    }
    key = public_key(Hotkey(errand.request.prover))
    seeds = {draws.request_seed(secret, errand.request.attempt_number, key) for secret in secrets}
    assert int(errand.request.sampling.seed, 16) in seeds


async def test_where_all_are_at_their_limit_the_wait_is_until_the_intervals_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.prover("Honest"), office(world) as here:
        await here.desk.withdrawn(await here.take(), "user_left")
        monkeypatch.setattr("targon.verifier.routes.SHARE_OF_LIMIT", 0.0)
        with pytest.raises(NobodyFree, match="at their tier's limit") as refused:
            await here.desk.take(order())
        monkeypatch.undo()
        info = await world.chain.info()
    assert 0 < refused.value.retry_after_s <= world.profile.interval_blocks * info.block_seconds


async def test_an_own_inference_is_sent_in_the_block_that_drew_it_or_soon_after(world: World) -> None:
    challenge = Challenge(
        messages=order().messages, temperature=0.8, top_p=1.0, top_k=0, stop=(), max_tokens=8
    )
    async with world.prover("Honest") as honest, office(world) as here:
        await here.serve()
        newest = here.desk._moments.now().block
        later = Block(newest + 2)
        errand = await here.desk.take_own(challenge, honest, later)
        assert later <= errand.request.block < later + OWN_LATEST_BLOCKS
        await here.desk.withdrawn(errand, "busy")
        with pytest.raises(NobodyFree, match="drew it"):
            await here.desk.take_own(challenge, honest, Block(newest - OWN_LATEST_BLOCKS))


async def test_no_words_of_a_provers_about_a_users_request_get_into_the_log(world: World) -> None:
    async with world.prover("Gossip"), office(world) as here:
        for code, shown in (
            ("engine_unavailable", "engine_unavailable"),
            ("they_asked_for_rain", "isn't ours"),
        ):
            errand = await here.take()
            error = Refused(errand.axon, 503, code, "they asked: why does it rain")
            assert await here.desk.failed(errand, error) == "prover"
            verdict = await here.verdict_on(errand)
            assert shown in verdict.reason
            assert "asked" not in verdict.reason
        errand = await here.take()
        await here.desk.failed(
            errand, BadResponse(errand.axon, "malformed", "got 'why does it rain', expected JSON")
        )
        assert "rain" not in (await here.verdict_on(errand)).reason
