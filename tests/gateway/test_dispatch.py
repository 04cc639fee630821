"""Orders over real HTTP: who answers, who is asked instead, what a user is told, and what the desk is."""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import replace

import anyio
import pytest
from anyio.abc import ByteStream
from bittensor.keyfiles import Keypair

from targon.engines import TaskRefused
from targon.engines.errors import EngineUnavailable
from targon.gateway.dispatch_hedging import Hedging
from targon.gateway.dispatch_pursuit import Pursuit, Run
from targon.gateway.errors import ServiceFailed
from targon.gateway.ports import Began, Delta
from targon.protocol.messages import ChatMessage, GenerateRequest, TokenEvent
from targon.protocol.primitives import TokenId
from targon.transport.errands import NobodyFree, NotReady, UnknownModel, Unservable
from targon.transport.errors import BadResponse, TimedOut
from tests.gateway.dispatch_world import (
    CHARGED,
    HEDGED,
    LONG_S,
    PATIENT,
    SILENT,
    a_world,
    all_of,
    an_order,
    answers,
    sends,
    signed_answer,
    until,
)
from tests.prover.world import CountingEngine
from tests.transport.world import STREAM_HEAD, a_request, a_response, done_event, token_event

pytestmark = pytest.mark.anyio


async def test_an_order_is_answered_by_a_real_prover() -> None:
    async with a_world(CountingEngine()) as world:
        text, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert (text, finished.completion_tokens, finished.finish_reason) == (" 1 2 3 4", 4, "length")
        assert world.desk.told == [("answered", 0)]


async def test_what_began_is_named_by_the_receipt_that_it_ends_with() -> None:
    async with a_world(CountingEngine()) as world:
        parts = [part async for part in world.dispatcher.fulfil(an_order())]
        first = parts[0]
        assert isinstance(first, Began)
        assert first.receipt_id == parts[-1].settled.receipt_id  # type: ignore[union-attr]
        assert await world.dispatcher.receipt(first.receipt_id) is not None


async def test_a_prompt_that_was_not_counted_is_counted_in_the_end() -> None:
    async with a_world(CountingEngine()) as world:
        world.desk.counts_prompts = False
        _, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert finished.prompt_tokens == 1


@pytest.mark.parametrize("trouble", ["away", "hanging"])
async def test_an_answer_that_is_logged_is_given_out_though_its_prompt_cannot_be_counted(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise NotReady("the reference engine is away", 5.0)

    monkeypatch.setattr("targon.gateway.dispatch_usage.COUNT_S", 0.2)
    async with a_world(answers(5, 6)) as world:
        world.desk.counts_prompts = False
        world.desk.counting = away if trouble == "away" else anyio.sleep_forever
        question = (ChatMessage(role="user", content="Say it in forty bytes, neither more no."),)
        text, finished = await all_of(world.dispatcher.fulfil(an_order(messages=question)))
        assert (text, finished.prompt_tokens) == ("xx", 9)  # a token for four bytes, about
        assert world.desk.told == [("answered", 0)]


async def test_a_prompt_is_counted_while_the_answer_is_streamed() -> None:
    counted = anyio.Event()
    async with a_world(answers(5, 6, ends=counted)) as world:
        world.desk.counts_prompts = False

        async def count() -> None:
            counted.set()

        world.desk.counting = count
        parts = world.dispatcher.fulfil(an_order())
        assert isinstance(await anext(parts), Began)
        with anyio.fail_after(LONG_S):
            await counted.wait()
        await parts.aclose()


async def test_what_no_engine_could_do_is_said_to_the_user_and_asked_of_nobody_else() -> None:
    class Refusing(CountingEngine):
        async def generate(self, task):
            if task.messages:
                raise TaskRefused("no")
            yield

    async with a_world(Refusing(), answers(7)) as world:
        world.desk.fault = "user"
        with pytest.raises(Unservable, match="chat template refuses these messages") as refused:
            await all_of(world.dispatcher.fulfil(an_order()))
        assert refused.value.parameter == "messages"
        assert (await world.desk.until_told(1), world.desk.asked) == ([("failed", 0)], 1)


async def test_a_prover_that_alone_refuses_a_task_is_replaced() -> None:
    class Refusing(CountingEngine):
        async def generate(self, task):
            if task.messages:
                raise TaskRefused("no")
            yield

    async with a_world(Refusing(), answers(7)) as world:
        text, _ = await all_of(world.dispatcher.fulfil(an_order()))
        assert text
        assert sorted(await world.desk.until_told(2)) == [("answered", 1), ("failed", 0)]


async def test_a_prover_that_is_gone_is_replaced_and_charged() -> None:
    async with a_world(sends(), CountingEngine()) as world:
        text, _ = await all_of(world.dispatcher.fulfil(an_order()))
        assert text == " 1 2 3 4"
        assert sorted(await world.desk.until_told(2)) == [("answered", 1), ("failed", 0)]
        assert world.desk.instead_of == [None, world.desk.taken[0]]
        assert world.metric("targon_dispatch_failovers_total") == 1


async def test_a_settlement_that_takes_long_does_not_hold_up_the_next_prover() -> None:
    async with a_world(sends(), answers(5, 6)) as world:
        world.desk.settles = anyio.Event()
        parts = world.dispatcher.fulfil(an_order())
        assert isinstance(await anext(parts), Began)
        assert world.desk.told == []
        world.desk.settles.set()
        await parts.aclose()


async def test_a_slow_prover_is_overtaken_and_hung_up_on_at_its_first_token() -> None:
    begins = anyio.Event()
    async with a_world(answers(5, 6, begins=begins), answers(7, 8, 9), patience=HEDGED) as world:
        _, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert finished.completion_tokens == 3
        begins.set()
        assert await world.desk.until_told(2) == [("answered", 1), ("outrun", 0)]
        assert world.metric("targon_dispatch_hedges_total") == 1
        assert world.metric("targon_dispatch_errands_total", outcome="outrun") == 1


async def test_a_slow_prover_that_still_begins_first_answers() -> None:
    first, second = anyio.Event(), anyio.Event()
    provers = answers(5, 6, begins=first), answers(7, 8, 9, begins=second)
    async with a_world(*provers, patience=HEDGED) as world, anyio.create_task_group() as tasks:

        async def begin() -> None:
            await until(lambda: len(world.desk.taken) == 2)
            first.set()

        tasks.start_soon(begin)
        _, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert finished.completion_tokens == 2
        second.set()
        assert sorted(await world.desk.until_told(2)) == [("answered", 0), ("outrun", 1)]


async def test_an_overtaken_prover_that_never_begins_is_charged() -> None:
    async with a_world(SILENT, answers(7, 8), patience=CHARGED) as world:
        await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(2) == [("answered", 1), ("failed", 0)]
        error = world.desk.errors[0]
        assert isinstance(error, TimedOut)
        assert error.phase == "first byte"


async def test_an_overtaken_prover_is_held_to_its_deadline_though_the_user_has_left() -> None:
    async with a_world(SILENT, answers(*range(3), ends=anyio.Event()), patience=CHARGED) as world:
        parts = world.dispatcher.fulfil(an_order())
        assert isinstance(await anext(parts), Began)
        await parts.aclose()
        assert sorted(await world.desk.until_told(2)) == [("failed", 0), ("user_left", 1)]


async def test_a_replacement_that_is_slow_is_overtaken_too() -> None:
    hedging = Hedging(unknown_s=0.8)  # later than it takes to see that the first one is gone
    patience = replace(PATIENT, hedging=hedging)
    async with a_world(sends(), SILENT, answers(7, 8), patience=patience) as world:
        assert isinstance(await anext(world.dispatcher.fulfil(an_order())), Began)
        assert world.metric("targon_dispatch_failovers_total") == 1
        assert world.metric("targon_dispatch_hedges_total") == 1


async def test_where_nobody_can_overtake_a_slow_prover_the_desk_is_not_asked_again_and_again() -> None:
    begins = anyio.Event()
    async with (
        a_world(answers(5, begins=begins), patience=HEDGED) as world,
        anyio.create_task_group() as tasks,
    ):

        async def begin() -> None:
            await until(lambda: world.desk.asked == 2)
            await anyio.sleep(0.35)  # it would be asked again
            begins.set()

        tasks.start_soon(begin)
        await all_of(world.dispatcher.fulfil(an_order()))
        assert world.desk.asked == 2


async def test_a_prover_that_could_not_be_had_to_overtake_may_still_replace() -> None:
    hangs_up = anyio.Event()
    async with a_world(sends(ends=hangs_up), answers(7), patience=HEDGED) as world:
        later = world.desk.provers.pop()
        async with anyio.create_task_group() as tasks:

            async def come_free() -> None:
                await until(lambda: world.desk.asked == 2)
                await anyio.sleep(0.1)  # it has been told that there is nobody
                world.desk.provers.append(later)
                hangs_up.set()

            tasks.start_soon(come_free)
            _, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert finished.completion_tokens == 1
        assert world.desk.asked == 3


async def test_an_answer_may_take_longer_than_its_first_token_may() -> None:
    patience = replace(PATIENT, prover=replace(PATIENT.prover, first_byte_s=1.0, between_bytes_s=1.5))
    assert patience.first_token_s < 2.8
    async with a_world(answers(*range(7), pause_s=0.4), patience=patience) as world:
        _, finished = await all_of(world.dispatcher.fulfil(an_order(max_tokens=8)))
        assert finished.completion_tokens == 7


async def test_only_so_many_orders_are_hedged() -> None:
    hedging = Hedging(unknown_s=0.05, floor_s=0.05, burst=1, share=0.05)
    async with a_world(
        answers(5, after_s=0.3), answers(7), patience=replace(PATIENT, hedging=hedging)
    ) as world:
        for _ in range(3):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert world.metric("targon_dispatch_hedges_total") == 1


async def test_bytes_without_a_token_are_no_first_token() -> None:
    drip = [STREAM_HEAD, *([b": still here\n\n"] * 3), token_event(text="")]
    async with a_world(sends(*drip, then_waits_s=600.0), answers(7, 8), patience=CHARGED) as world:
        _, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert finished.completion_tokens == 2
        assert sorted(await world.desk.until_told(2)) == [("answered", 1), ("failed", 0)]


async def test_at_most_three_provers_are_asked() -> None:
    async with a_world(sends(), sends(), sends(), CountingEngine()) as world:
        with pytest.raises(ServiceFailed, match="3 provers were asked") as caught:
            await all_of(world.dispatcher.fulfil(an_order()))
        assert not caught.value.begun
        assert await world.desk.until_told(3) == [("failed", 0), ("failed", 1), ("failed", 2)]


async def test_where_nobody_else_is_free_the_user_is_told_what_happened() -> None:
    async with a_world(sends()) as world:
        with pytest.raises(
            ServiceFailed, match=r"1 prover was asked \(its connection broke\), and nobody else"
        ):
            await all_of(world.dispatcher.fulfil(an_order()))


async def test_where_all_who_were_asked_are_busy_the_user_is_told_when_to_try_again() -> None:
    body = b'{"error":{"code":"queue_full","message":"full <script>"}}'
    busy = b"HTTP/1.1 503 X\r\nContent-Type: application/json\r\nRetry-After: 3\r\nConnection: close\r\n"
    busy += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    async with a_world(sends(busy), sends(busy)) as world:
        with pytest.raises(NobodyFree, match="2 provers were asked and took no more") as caught:
            await all_of(world.dispatcher.fulfil(an_order()))
        assert caught.value.retry_after_s == 3.0


@pytest.mark.parametrize(
    "refusal",
    [NobodyFree("x", 2.0), NotReady("x", 2.0), Unservable("max_tokens", "context_length_exceeded", "x")],
)
async def test_what_the_desk_refuses_is_refused_in_its_words(refusal: Exception) -> None:
    async with a_world(CountingEngine()) as world:
        world.desk.refusal = refusal  # type: ignore[assignment]
        with pytest.raises(type(refusal)) as caught:
            await all_of(world.dispatcher.fulfil(an_order()))
        assert caught.value is refusal


async def test_an_unknown_model_is_named() -> None:
    async with a_world(CountingEngine()) as world:
        with pytest.raises(UnknownModel, match="'gpt'"):
            await all_of(world.dispatcher.fulfil(an_order(model="gpt")))


async def test_a_desk_that_does_not_answer_is_not_waited_for() -> None:
    async with a_world(CountingEngine(), patience=replace(PATIENT, take_s=0.5, settle_s=0.5)) as world:
        world.desk.pause_s = 600.0
        with pytest.raises(NotReady, match=r"within 0.5 s"):
            await all_of(world.dispatcher.fulfil(an_order()))


async def test_an_answer_that_dies_is_an_error_and_nobody_else_is_asked() -> None:
    engine = CountingEngine()
    engine.fail_at, engine.error = 3, EngineUnavailable("secret words of the prover's")
    async with a_world(engine, CountingEngine()) as world:
        parts = world.dispatcher.fulfil(an_order())
        given = [await anext(parts) for _ in range(3)]
        assert [part.text for part in given if isinstance(part, Delta)] == [" 1", " 2"]
        with pytest.raises(ServiceFailed, match="it refused: engine_unavailable") as caught:
            await anext(parts)
        assert caught.value.begun
        assert "secret" not in str(caught.value)
        assert await world.desk.until_told(1) == [("failed", 0)]
        assert len(world.desk.taken) == 1


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (b"", "its connection broke"),
        (b"data: {\n\n", "broke the rules of the wire: malformed"),
        (
            b"data: " + TokenEvent(token_ids=(), text="y", logprobs=(0.0,)).to_bytes() + b"\n\n",
            "inconsistent",
        ),
        (done_event(a_response(a_request(), (9,))), "inconsistent"),
    ],
)
async def test_a_prover_that_breaks_off_or_sends_garbage_is_charged(after: bytes, words: str) -> None:
    async with a_world(sends(STREAM_HEAD, token_event(5), after)) as world:
        with pytest.raises(ServiceFailed, match=words):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [("failed", 0)]


async def test_a_prover_that_stalls_in_the_middle_is_charged() -> None:
    patience = replace(PATIENT, prover=replace(PATIENT.prover, between_bytes_s=0.4))
    script = sends(STREAM_HEAD, token_event(5), then_waits_s=600.0)
    async with a_world(script, patience=patience) as world:
        with pytest.raises(ServiceFailed, match=r"it sent nothing for 0.4 s"):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [("failed", 0)]


async def test_another_requests_receipt_is_refused_at_the_end() -> None:
    another = done_event(a_response(a_request(), (5,)))
    told = token_event(5, text="one two three")
    async with a_world(sends(STREAM_HEAD, told, another)) as world:
        with pytest.raises(ServiceFailed, match="refused at its end") as caught:
            await all_of(world.dispatcher.fulfil(an_order()))
        assert caught.value.begun
        assert world.desk.told == [("refused", 0)]


async def test_streamed_text_that_is_not_what_was_signed_is_the_provers_fault() -> None:
    async with a_world(answers(5, 6, text="xy")) as world:
        with pytest.raises(ServiceFailed, match="inconsistent"):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [("failed", 0)]
        assert isinstance(world.desk.errors[0], BadResponse)


@pytest.mark.parametrize(
    ("signed", "told"), [((-0.5,), "answered"), ((-0.25,), "failed"), (None, "answered")]
)
async def test_streamed_log_probabilities_are_those_that_were_signed_if_any_were(
    signed: tuple[float, ...] | None, told: str
) -> None:
    async def script(stream: ByteStream, request: GenerateRequest, key: Keypair) -> None:
        event = TokenEvent(token_ids=(TokenId(5),), text="x", logprobs=(-0.5,))
        answer = signed_answer(request, key, 5, logprobs=signed)
        await stream.send(STREAM_HEAD + b"data: " + event.to_bytes() + b"\n\n" + done_event(answer))

    async with a_world(script) as world:
        with suppress(ServiceFailed):
            await all_of(world.dispatcher.fulfil(an_order()))
        assert await world.desk.until_told(1) == [(told, 0)]


async def test_an_answer_without_a_token_is_nobodys_and_another_prover_is_asked() -> None:
    async with a_world(answers(), answers(7)) as world:
        _, finished = await all_of(world.dispatcher.fulfil(an_order()))
        assert finished.completion_tokens == 1
        assert sorted(await world.desk.until_told(2)) == [("answered", 1), ("failed", 0)]


async def test_an_answer_that_the_log_does_not_take_is_not_acknowledged() -> None:
    async with a_world(CountingEngine(), patience=replace(PATIENT, settle_s=0.5)) as world:
        world.desk.settles = anyio.Event()
        with pytest.raises(ServiceFailed, match="could not log how it ended") as caught:
            await all_of(world.dispatcher.fulfil(an_order()))
        assert caught.value.begun
        assert world.metric("targon_dispatch_errands_total", outcome="unsettled") == 1


async def test_what_was_said_is_let_go_of_at_once_when_an_order_has_ended() -> None:
    """Not when the garbage collector comes by: under load it would have much to look through."""
    async with a_world(CountingEngine()) as world:
        await all_of(world.dispatcher.fulfil(an_order()))  # what is imported and kept on first use
        gc.collect()
        older = [id(one) for one in gc.get_objects() if isinstance(one, Run | Pursuit)]  # of other tests
        gc.disable()
        try:
            await all_of(world.dispatcher.fulfil(an_order()))
            await until(lambda: not world.dispatcher._errands)
            await anyio.sleep(0.01)
            left = [
                one for one in gc.get_objects() if isinstance(one, Run | Pursuit) and id(one) not in older
            ]
            assert left == []
        finally:
            gc.enable()
