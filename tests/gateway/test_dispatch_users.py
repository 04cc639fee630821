"""Users who leave, who read slowly or not at all, and a dispatcher that is stopped under them."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from anyio.abc import ByteStream
from bittensor.keyfiles import Keypair

from targon.gateway.errors import ServiceFailed
from targon.gateway.ports import Began, Delta, Finished
from targon.protocol.messages import GenerateRequest
from targon.transport.errands import NotReady
from tests.gateway.dispatch_world import (
    HEDGED,
    LONG_S,
    PATIENT,
    SILENT,
    Parts,
    World,
    a_world,
    all_of,
    an_order,
    answers,
    sends,
    signed_answer,
    until,
)
from tests.prover.world import CountingEngine
from tests.transport.world import STREAM_HEAD, done_event, token_event

pytestmark = pytest.mark.anyio

MANY = range(1, 401)


def a_slow_engine() -> CountingEngine:
    engine = CountingEngine()
    engine.pause_s = 0.05
    return engine


async def read_out(parts: Parts, into: list[object]) -> None:
    async for part in parts:
        into.append(part)  # noqa: PERF401 - what came before an error is wanted too


async def until_nothing_runs(world: World) -> None:
    await until(lambda: not world.metric("targon_dispatch_errands_running"))


async def until_full(world: World) -> None:
    """Until as much of an answer waits for its user as is kept."""
    await until(lambda: any(run.buffer.full for run in world.dispatcher._errands))


async def test_a_user_who_closes_the_answer_hangs_up_at_the_prover() -> None:
    engine = a_slow_engine()
    async with a_world(engine) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=200))
        assert isinstance(await anext(parts), Began)
        await parts.aclose()
        assert await world.desk.until_told(1) == [("user_left", 0)]
        await until(lambda: bool(engine.closed))


async def test_a_user_who_is_cancelled_before_the_first_token_is_withdrawn_from_everybody() -> None:
    async with a_world(SILENT, SILENT, patience=HEDGED) as world:
        async with anyio.create_task_group() as user:
            user.start_soon(all_of, world.dispatcher.fulfil(an_order()))
            await until(lambda: len(world.desk.taken) == 2)
            user.cancel_scope.cancel()
        assert await world.desk.until_told(2) == [("user_left", 0), ("user_left", 1)]


async def test_an_attempt_that_was_being_logged_when_the_user_left_is_withdrawn_and_not_sent() -> None:
    engine = CountingEngine()
    async with a_world(engine) as world:
        world.desk.pause_s = 0.2
        with anyio.move_on_after(0.05):
            await anext(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [("user_left", 0)]
        assert engine.tasks == []


async def test_a_withdrawal_is_logged_though_the_desk_is_slow_and_the_user_gone() -> None:
    async with a_world(a_slow_engine()) as world:
        world.desk.settles = anyio.Event()
        parts = world.dispatcher.fulfil(an_order(max_tokens=200))
        await anext(parts)
        await parts.aclose()
        assert world.desk.told == []
        world.desk.settles.set()
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_an_answer_that_was_whole_when_the_user_left_stands_in_the_log() -> None:
    async with a_world(CountingEngine()) as world:
        world.desk.settles = anyio.Event()
        parts = world.dispatcher.fulfil(an_order(max_tokens=1))
        assert isinstance(await anext(parts), Began)
        await until(lambda: world.desk.settling == ["answered"])
        await parts.aclose()
        world.desk.settles.set()
        assert await world.desk.until_told(1) == [("answered", 0)]


async def test_a_user_who_reads_slowly_gets_all_of_it() -> None:
    patience = replace(PATIENT, buffer_bytes=2048)
    async with a_world(answers(*MANY), patience=patience) as world:
        tokens = 0
        async for part in world.dispatcher.fulfil(an_order(max_tokens=400)):
            if isinstance(part, Delta):
                tokens += len(part.token_ids)
                await anyio.sleep(0.001)
        assert tokens == 400
        assert world.desk.told == [("answered", 0)]


async def test_a_slow_reader_does_not_make_his_prover_look_slow() -> None:
    async with a_world(answers(*MANY, pause_s=0.001)) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=400))
        await anext(parts)
        await until(
            lambda: bool(world.desk.answers)
        )  # the time that it took is known, and nothing of it is read
        assert world.desk.answers[0].timing.tokens_per_s is not None
        rest: list[object] = []
        await read_out(parts, rest)
        assert sum(len(part.token_ids) for part in rest if isinstance(part, Delta)) == 400


async def test_where_reading_stopped_for_a_user_too_soon_no_speed_was_seen() -> None:
    patience = replace(PATIENT, buffer_bytes=2048)
    async with a_world(answers(*MANY), patience=patience) as world:
        async for part in world.dispatcher.fulfil(an_order(max_tokens=400)):
            if isinstance(part, Began):
                await until_full(world)
                await anyio.sleep(0.2)
        assert world.desk.answers[0].timing.tokens_per_s is None


async def test_a_user_who_stops_reading_is_given_up_and_the_prover_is_not_charged() -> None:
    patience = replace(PATIENT, buffer_bytes=2048, reader_s=0.3)
    async with a_world(answers(*MANY), patience=patience) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=400))
        await anext(parts)
        assert await world.desk.until_told(1) == [("user_left", 0)]
        held: list[object] = []
        with pytest.raises(ServiceFailed, match="read too slowly") as caught:
            await read_out(parts, held)
        assert caught.value.begun
        assert len(held) < 10


HANGS_UP = sends(STREAM_HEAD, *[token_event(5)] * 40)


async def test_a_prover_that_hangs_up_where_a_user_reads_too_slowly_is_not_charged() -> None:
    patience = replace(PATIENT, buffer_bytes=2048, unread_s=0.1)
    async with a_world(HANGS_UP, patience=patience) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=400))
        await anext(parts)
        await until_full(world)
        await anyio.sleep(0.2)
        with pytest.raises(ServiceFailed, match="read too slowly"):
            await read_out(parts, [])
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_a_prover_that_hangs_up_long_after_a_user_read_slowly_is_charged() -> None:
    event = token_event(5)

    async def goes_on(stream: ByteStream, request: GenerateRequest, key: Keypair) -> None:
        await stream.send(STREAM_HEAD + event * 40)
        for _ in range(8):
            await anyio.sleep(0.2)
            await stream.send(event)

    patience = replace(PATIENT, buffer_bytes=2048, unread_s=0.1)
    async with a_world(goes_on, patience=patience) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=400))
        await anext(parts)
        await until_full(world)
        await anyio.sleep(0.2)
        with pytest.raises(ServiceFailed, match="its connection broke"):
            await read_out(parts, [])
        assert await world.desk.until_told(1) == [("failed", 0)]


async def test_a_prover_whose_time_went_by_while_a_user_read_slowly_is_not_charged() -> None:
    prover = replace(PATIENT.prover, total_s=2.0)
    patience = replace(PATIENT, prover=prover, buffer_bytes=2048, unread_s=0.3)
    async with a_world(
        sends(STREAM_HEAD, *[token_event(5)] * 40, then_waits_s=600.0), patience=patience
    ) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=400))
        await anext(parts)
        await until_full(world)
        await anyio.sleep(0.4)
        with pytest.raises(ServiceFailed, match="read too slowly"):
            await read_out(parts, [])
        assert await world.desk.until_told(1) == [("user_left", 0)]


@pytest.mark.parametrize("stalls_s", [0.0, 600.0], ids=["and hangs up", "and stalls"])
@pytest.mark.parametrize(
    "sent",
    [token_event(5, text="x" * 65_600), token_event(5) * 900],
    ids=["one event with much text", "many tokens at once"],
)
async def test_a_prover_that_fills_the_buffer_itself_is_charged_as_any_other(
    sent: bytes, stalls_s: float
) -> None:
    script = sends(STREAM_HEAD, sent, then_waits_s=stalls_s)
    patience = replace(PATIENT, prover=replace(PATIENT.prover, between_bytes_s=0.4))
    async with a_world(script, patience=patience) as world:
        with pytest.raises(ServiceFailed, match="the prover's answer broke off"):
            await read_out(world.dispatcher.fulfil(an_order(max_tokens=1_000)), [])
        assert await world.desk.until_told(1) == [("failed", 0)]


async def test_a_prover_that_fills_the_buffer_and_then_answers_slowly_is_seen_to_be_slow() -> None:
    """Else its speed would be that of the burst."""
    many = range(1, 1_301)
    begun = anyio.Event()

    async def bursts(stream: ByteStream, request: GenerateRequest, key: Keypair) -> None:
        await stream.send(STREAM_HEAD + token_event(1))
        await begun.wait()
        await anyio.sleep(0.55)
        await stream.send(b"".join(token_event(token) for token in many[1:-2]))
        for token in many[-2:]:
            await anyio.sleep(0.35)
            await stream.send(token_event(token))
        await stream.send(done_event(signed_answer(request, key, *many)))

    async with a_world(bursts) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=2_000))
        await anext(parts)
        begun.set()
        await read_out(parts, [])
        timing = world.desk.answers[0].timing
        assert timing.first_token_s is not None
        assert timing.last_token_s is not None
        assert timing.last_token_s - timing.first_token_s > 1.2


async def test_a_desk_that_answers_too_late_has_its_errand_withdrawn() -> None:
    async with a_world(CountingEngine(), patience=replace(PATIENT, take_s=0.5)) as world:
        world.desk.pause_s = 0.7
        with pytest.raises(NotReady, match=r"within 0.5 s"):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_a_dispatcher_that_drains_takes_no_orders_and_lets_the_others_end_well() -> None:
    async with a_world(answers(5, 6, 7, pause_s=0.1)) as world, anyio.create_task_group() as tasks:
        parts = world.dispatcher.fulfil(an_order())
        await anext(parts)
        tasks.start_soon(world.dispatcher.drain, LONG_S)
        await anyio.lowlevel.checkpoint()
        with pytest.raises(NotReady, match="started or stopped"):
            await all_of(world.dispatcher.fulfil(an_order()))
        rest = [part async for part in parts]
        assert isinstance(rest[-1], Finished)


async def test_a_dispatcher_that_has_drained_long_enough_withdraws_what_still_runs() -> None:
    async with a_world(SILENT, answers(*MANY, pause_s=0.05), patience=HEDGED) as world:
        begun = world.dispatcher.fulfil(an_order(max_tokens=400))
        await anext(begun)
        await world.dispatcher.drain(0.1)
        assert sorted(world.desk.told) == [("outrun", 0), ("user_left", 1)]
        with pytest.raises(ServiceFailed, match="being stopped"):
            await read_out(begun, [])


async def test_an_order_that_waits_when_the_drain_ends_is_told_so() -> None:
    async with a_world(SILENT) as world, anyio.create_task_group() as tasks:

        async def stop() -> None:
            await anyio.sleep(0.1)
            await world.dispatcher.drain(0.1)

        tasks.start_soon(stop)
        with pytest.raises(NotReady, match="being stopped"):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_what_runs_when_the_dispatcher_is_cancelled_is_withdrawn_and_logged() -> None:
    async with a_world(a_slow_engine()) as world:
        parts = world.dispatcher.fulfil(an_order(max_tokens=200))
        await anext(parts)
    assert world.desk.told == [("user_left", 0)]
    with pytest.raises(ServiceFailed, match="being stopped"):
        await read_out(parts, [])


async def test_more_orders_than_may_run_are_told_to_come_back() -> None:
    async with a_world(a_slow_engine(), max_running=1) as world:
        first = world.dispatcher.fulfil(an_order())
        await anext(first)
        with pytest.raises(NotReady, match="expected fewer"):
            await all_of(world.dispatcher.fulfil(an_order()))
        await first.aclose()
        await until_nothing_runs(world)
        await all_of(world.dispatcher.fulfil(an_order()))


async def test_nothing_is_kept_of_orders_that_ended() -> None:
    async with a_world(CountingEngine()) as world:
        for _ in range(3):
            await all_of(world.dispatcher.fulfil(an_order()))
        await until_nothing_runs(world)
        assert world.metric("targon_dispatch_orders_running") == 0
        assert world.metric("targon_dispatch_first_token_seconds_count") == 3
