"""What a prover answers: whole and streamed, signed, and let go when nobody waits for it."""

from __future__ import annotations

import anyio
import pytest

from targon import __version__
from targon.engines.errors import TaskRefused
from targon.protocol import receipts
from targon.protocol.draws import run_key
from targon.protocol.messages import TokenEvent
from targon.prover import ProverSettings
from targon.transport import Answer, Limits, Refused
from targon.transport.limits import Allowance
from tests.prover.world import PROVER, VERIFIER, CountingEngine, a_prover

pytestmark = pytest.mark.anyio


async def test_a_whole_answer_carries_the_tokens_and_a_receipt_that_checks() -> None:
    async with a_prover() as world:
        request = world.request(max_tokens=3)

        answer = await world.client.generate(world.axon, request, VERIFIER)

    completion = answer.response.completion
    assert completion.token_ids == (1, 2, 3)
    assert (completion.text, completion.finish_reason) == (" 1 2 3", "length")
    assert completion.logprobs == (-0.5, -0.5, -0.5)
    receipts.check(answer.response.receipt, request, completion)
    assert answer.response.receipt.body.model_digest == "cd" * 32


async def test_a_streamed_answer_says_the_same_token_by_token() -> None:
    async with a_prover() as world:
        request = world.request(max_tokens=3, stream=True)

        parts = [part async for part in world.client.stream(world.axon, request, VERIFIER)]

    *tokens, answer = parts
    assert [part.token_ids for part in tokens if isinstance(part, TokenEvent)] == [(1,), (2,), (3,)]
    assert isinstance(answer, Answer)
    receipts.check(answer.response.receipt, request, answer.response.completion)


async def test_the_engine_gets_the_noise_key_that_the_protocol_draws() -> None:
    async with a_prover() as world:
        request = world.request()
        await world.client.generate(world.axon, request, VERIFIER)

        expected = run_key(
            7,
            VERIFIER.public_key,
            request.attempt_number,
            PROVER.public_key,
            bytes.fromhex(request.block_hash),
        )
        assert [task.run_key for task in world.engine.tasks] == [expected]
        assert world.engine.tasks[0].messages == request.messages


async def test_no_two_answers_share_a_salt() -> None:
    async with a_prover() as world:
        answers = [
            (await world.client.generate(world.axon, world.request(), VERIFIER)).response for _ in range(3)
        ]

    salts = [answer.completion.salt for answer in answers] + [answer.receipt.body.salt for answer in answers]
    assert len(set(salts)) == 6


async def test_status_says_what_is_served_and_how_busy_it_is() -> None:
    engine = CountingEngine()
    engine.hold = anyio.Event()
    async with a_prover(engine=engine, max_running=1) as world, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(world.client.generate, world.axon, world.request(), VERIFIER)
        await world.until_waiting(1)

        status = await world.client.status(world.axon, PROVER.ss58_address, VERIFIER)
        engine.hold.set()

    assert (status.version, status.hotkey) == (__version__, PROVER.ss58_address)
    assert (status.models, status.dialects) == (("tiny",), ("targon/1", "greedy"))
    assert (status.capacity, status.running, status.queued) == (1, 1, 1)


async def test_the_capacity_it_reports_is_less_than_its_gate_lets_one_caller_have() -> None:
    limits = Limits(per_hotkey=Allowance(per_second=50.0, burst=200, concurrent=16))
    async with a_prover(max_running=256, limits=limits) as world:
        status = await world.client.status(world.axon, PROVER.ss58_address, VERIFIER)
    assert status.capacity == 14
    assert ProverSettings().capacity(256) < Limits().per_hotkey.concurrent
    assert ProverSettings().capacity(8) == 8


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_frees_the_engine(stream: bool) -> None:
    engine = CountingEngine()
    engine.pause_s = 0.02
    async with a_prover(engine=engine) as world:
        request = world.request(max_tokens=400, stream=stream)
        with anyio.move_on_after(0.3):
            await world.client.generate(world.axon, request, VERIFIER)

        with anyio.fail_after(2):
            while not engine.closed:
                await anyio.sleep(0.01)
        await world.until_running(0)
        assert world.metric("targon_requests_abandoned_total") == 1
        assert world.metric("targon_prover_tokens_total") < 100


async def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue() -> None:
    engine = CountingEngine()
    engine.hold = anyio.Event()
    async with a_prover(engine=engine, max_running=1) as world, anyio.create_task_group() as tasks:
        tasks.start_soon(world.client.generate, world.axon, world.request(), VERIFIER)
        await world.until_running(1)
        with anyio.move_on_after(0.3):
            await world.client.generate(world.axon, world.request(), VERIFIER)

        await world.until_waiting(0)
        engine.hold.set()
        with anyio.fail_after(2):
            await world.client.generate(world.axon, world.request(), VERIFIER)
        assert len(engine.tasks) == 2


async def test_an_abandoned_attempt_may_be_tried_again() -> None:
    engine = CountingEngine()
    engine.pause_s = 10.0
    async with a_prover(engine=engine) as world:
        request = world.request()
        with anyio.move_on_after(0.2):
            await world.client.generate(world.axon, request, VERIFIER)
        await world.until_running(0)
        engine.pause_s = 0.0

        answer = await world.client.generate(world.axon, request, VERIFIER)

    assert answer.response.completion.token_ids == (1, 2, 3, 4)


@pytest.mark.parametrize(("stream", "status"), [(False, 503), (True, 200)])
async def test_an_engine_that_breaks_is_a_refusal_whole_or_streamed(stream: bool, status: int) -> None:
    engine = CountingEngine()
    engine.fail_at = 3
    async with a_prover(engine=engine) as world:
        request = world.request(stream=stream)
        with pytest.raises(Refused) as refused:
            await world.client.generate(world.axon, request, VERIFIER)

        assert (refused.value.status, refused.value.code) == (status, "engine_unavailable")
        assert "GPU" not in str(refused.value)
        assert world.metric("targon_refusals_total", code="engine_unavailable") == 1

        engine.fail_at = None
        assert await world.client.generate(world.axon, request, VERIFIER)


async def test_an_engine_that_breaks_is_logged_once_until_it_works_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = CountingEngine()
    engine.fail_at = 1
    async with a_prover(engine=engine) as world:
        for _ in range(3):
            with pytest.raises(Refused):
                await world.client.generate(world.axon, world.request(), VERIFIER)
        engine.fail_at = None
        await world.client.generate(world.axon, world.request(), VERIFIER)

    logged = capsys.readouterr().out
    assert logged.count("engine unavailable") == 1
    assert logged.count("engine works again") == 1


async def test_an_engine_that_hangs_is_given_up_on() -> None:
    engine = CountingEngine()
    engine.pause_s = 10.0
    async with a_prover(engine=engine, step_timeout_s=0.2) as world:
        with pytest.raises(Refused) as refused:
            await world.client.generate(world.axon, world.request(), VERIFIER)

        assert refused.value.code == "engine_unavailable"
        assert engine.closed == 1


async def test_an_engine_that_ends_without_a_reason_signs_nothing() -> None:
    engine = CountingEngine()
    engine.finishes = False
    async with a_prover(engine=engine) as world:
        with pytest.raises(Refused) as refused:
            await world.client.generate(world.axon, world.request(), VERIFIER)

    assert refused.value.code == "engine_unavailable"


async def test_a_task_that_the_engine_refuses_is_the_askers_doing() -> None:
    engine = CountingEngine()
    engine.fail_at, engine.error = 1, TaskRefused("the prompt has 600 tokens, the context is 512")
    async with a_prover(engine=engine) as world:
        with pytest.raises(Refused) as refused:
            await world.client.generate(world.axon, world.request(), VERIFIER)

    assert (refused.value.status, refused.value.code) == (422, "task_refused")
    assert "600 tokens" in refused.value.message
