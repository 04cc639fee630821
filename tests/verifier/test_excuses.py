"""Refusals that may be nobody's fault: they are looked into first, and no prover can live by them."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from targon.engines import TaskRefused
from targon.ledger import Withdrawn
from targon.protocol.messages import ChatMessage
from targon.protocol.schedule import MAX_BLOCK_AGE
from targon.transport import Code, Refused, TransportError
from targon.transport.errands import Errand, Unservable
from targon.verifier.canary import Canary
from targon.verifier.delivery import undelivered
from targon.verifier.loads import EXCUSES
from tests.tiny_engine import TinyEngine
from tests.verifier.conftest import BLOCK_SECONDS, World
from tests.verifier.office import office

pytestmark = pytest.mark.anyio


class Picky(TinyEngine):
    """Its template wants user and assistant in turns, as several models' do, and refuses one word."""

    async def prompt_token_ids(self, messages):
        turns = pairwise(messages)
        if any(a.role == b.role for a, b in turns) or "forbidden" in messages[-1].content:
            raise TaskRefused("messages: the model's chat template refuses them: forbidden")
        return await super().prompt_token_ids(messages)


def refusal(errand: Errand, code: Code, status: int = 422) -> TransportError:
    return Refused(errand.axon, status, code, "no")


async def test_messages_whose_roles_the_template_refuses_reach_no_prover(world: World) -> None:
    world.reference = Picky()
    twice = tuple(ChatMessage(role="user", content=content) for content in "ab")
    async with world.prover("Honest"), office(world) as here:
        await here.serve()
        with pytest.raises(Unservable, match="template refuses") as refused:
            await here.take(messages=twice)
    assert refused.value.parameter == "messages"


async def test_a_prover_that_refuses_what_our_engine_refuses_too_is_not_charged(world: World) -> None:
    world.reference = Picky()
    async with world.prover("Honest"), office(world) as here:
        await here.serve()
        errand = await here.take(content="forbidden")
        assert await here.desk.failed(errand, refusal(errand, Code.TASK_REFUSED)) == "user"
        lying = await here.take(content="all is well")
        assert await here.desk.failed(lying, refusal(lying, Code.TASK_REFUSED)) == "prover"
        assert (await here.verdict_on(lying)).outcome == "fail"
        events = await world.events()
    withdrawn = {e.attempt: e.why for e in events if isinstance(e, Withdrawn)}
    assert withdrawn[errand.request.attempt_number] == "unservable"
    assert lying.request.attempt_number not in withdrawn


async def test_no_prover_can_hold_a_request_until_its_block_is_old(world: World) -> None:
    async with world.prover("Cheat"), office(world) as here:
        errand = await here.take()
        await anyio.sleep(BLOCK_SECONDS * (MAX_BLOCK_AGE + 3))
        assert await here.desk.failed(errand, refusal(errand, Code.STALE_BLOCK, 409)) == "prover"
        old = undelivered(refusal(errand, Code.STALE_BLOCK, 409))
        canary = Canary(world.chain, world.reference)
        sent_late = await canary.judge_silence(errand.request, old, 0.1)
        held = await canary.judge_silence(errand.request, old, BLOCK_SECONDS * (MAX_BLOCK_AGE + 3))
    assert (sent_late.outcome, held.outcome) == ("inconclusive", "fail")


async def test_refusals_by_a_provers_gate_cost_nothing_a_number_of_times(world: World) -> None:
    faults: list[str] = []
    async with world.prover("Honest"), office(world) as here:
        for _ in range(3):
            errand = await here.take()
            faults.append(await here.desk.failed(errand, refusal(errand, Code.TOO_MANY_CONCURRENT, 429)))
        prover = errand.request.prover
        here.desk._loads._of(prover).excuses -= EXCUSES - 3
        errand = await here.take()
        faults.append(await here.desk.failed(errand, refusal(errand, Code.TOO_MANY_REQUESTS, 429)))
    assert faults == ["nobody"] * 3 + ["prover"]
