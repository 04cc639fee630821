"""What an oracle's engine does for verifiers that have none: who is served, and who is turned away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from targon.engines import EngineBusy
from targon.oracle.reference import PATH, ReferenceDesk, ReferenceLimits
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import Hotkey
from targon.protocol.references import ReferenceAnswer, ReferenceTask, check_reference
from targon.transport import Allowance, Code, NeuronClient, Refusal, Refused
from tests.tiny_engine import TinyEngine
from tests.verifier.lending import ALICE, GENESIS, NETUID, ORACLES, Place, WordyEngine, an_oracle, hotkey

pytestmark = pytest.mark.anyio

BOB = ORACLES[1]
IDENTITY = ReferenceTask(kind="identity").to_bytes()
TRUTH = ReferenceTask(
    kind="ground_truth",
    messages=(ChatMessage(role="user", content="Why?"),),
    sampling=Sampling(seed="0000000000000001", temperature=0.8, max_tokens=8),
    run_key="0000000000000001",
)


class HeldEngine(TinyEngine):
    """Answers nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = anyio.Event()
        self.working = 0

    async def check(self) -> None:
        self.working += 1
        try:
            await self.let.wait()
        finally:
            self.working -= 1


@dataclass
class Ask:
    """Asks an oracle for something."""

    port: int
    client: NeuronClient
    desk: ReferenceDesk

    async def __call__(self, body: bytes, signer: Any = ALICE) -> ReferenceAnswer:
        given = await self.client.post(Place(self.port), PATH, body, hotkey(0), signer, max_bytes=1 << 20)
        return ReferenceAnswer.from_bytes(given)

    async def held(self, tasks: int, engine: HeldEngine, working: int) -> None:
        """Wait until the desk has so many tasks, and the engine so many of them."""
        with anyio.fail_after(30):
            while (self.desk._waiting, engine.working) != (tasks, working):
                await anyio.sleep(0.005)


@asynccontextmanager
async def asking(engine: TinyEngine, **settings: Any) -> AsyncIterator[Ask]:
    desks: list[ReferenceDesk] = []
    async with (
        an_oracle(engine, ORACLES[0], desks=desks, **settings) as port,
        NeuronClient(tls="off") as client,
    ):
        yield Ask(port, client, desks[0])


async def refused(ask: Ask, body: bytes, signer: Any = ALICE) -> Refused:
    with pytest.raises(Refused) as caught:
        await ask(body, signer)
    return caught.value


async def test_an_answer_is_signed_for_whoever_asked() -> None:
    async with asking(TinyEngine()) as ask:
        answer = await ask(TRUTH.to_bytes())
    check_reference(
        answer,
        TRUTH,
        genesis=GENESIS,
        netuid=NETUID,
        oracle=hotkey(0),
        verifier=Hotkey(ALICE.ss58_address),
    )
    body = answer.statement.body
    assert (body.block, body.engine, body.dtype) == (100, "tiny 1", "float32")


async def test_whoever_has_no_permit_is_turned_away() -> None:
    def nobody(caller: Hotkey) -> None:
        raise Refusal(Code.NO_VALIDATOR_PERMIT, "only validators may ask", got=caller)

    engine = TinyEngine()
    async with asking(engine, policy=nobody) as ask:
        assert (await refused(ask, TRUTH.to_bytes())).code == "no_validator_permit"
    assert not engine.asked


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_request"),
        (b'{"kind":"scores"}', "malformed_request"),
        (b'{"kind":"prompt"}', "malformed_request"),
        (TRUTH.model_copy(update={"run_key": None}).to_bytes(), "malformed_request"),
        (b'{"kind":"text","token_ids":[' + b"1," * 9000 + b"1]}", "malformed_request"),
        (b" " * 3000, "body_too_large"),
        (
            ReferenceTask.from_json(
                TRUTH.to_json() | {"sampling": TRUTH.to_json()["sampling"] | {"max_tokens": 5000}}
            ).to_bytes(),
            "task_refused",
        ),
        (ReferenceTask(kind="tokenizer").to_bytes(), "task_refused"),
    ],
)
async def test_what_is_no_task_or_too_much_is_refused_by_name(body: bytes, code: str) -> None:
    limits = ReferenceLimits(max_task_bytes=2048 if code == "body_too_large" else 512 * 1024)
    async with asking(TinyEngine(), limits=limits) as ask:
        assert (await refused(ask, body)).code == code


async def test_an_engine_that_is_down_is_said_to_be_with_a_time_to_come_again() -> None:
    async with asking(TinyEngine(down=True)) as ask:
        error = await refused(ask, IDENTITY)
    assert (error.status, error.code) == (503, "engine_unavailable")
    assert error.retry_after_s is not None


async def test_an_engine_that_is_busy_is_said_to_be_with_a_time_to_come_again() -> None:
    class BusyEngine(TinyEngine):
        async def check(self) -> None:
            raise EngineBusy("too many requests")

    async with asking(BusyEngine()) as ask:
        error = await refused(ask, IDENTITY)
    assert (error.status, error.code) == (503, "queue_full")
    assert error.retry_after_s is not None


@pytest.mark.parametrize(
    ("task", "bound"),
    [
        (ReferenceTask(kind="tokenizer"), "MAX_TOKENIZER_CHARS"),
        (ReferenceTask(kind="prompt", messages=TRUTH.messages), "MAX_PROMPT_TOKENS"),
    ],
)
async def test_what_is_too_large_to_be_told_is_refused(
    monkeypatch: pytest.MonkeyPatch, task: ReferenceTask, bound: str
) -> None:
    async with asking(WordyEngine()) as ask:
        assert (await ask(task.to_bytes())).result.kind == task.kind
    monkeypatch.setattr(f"targon.oracle.reference.{bound}", 0)
    async with asking(WordyEngine()) as ask:
        assert (await refused(ask, task.to_bytes())).code == "task_refused"


async def test_a_full_queue_turns_away_with_a_time_to_come_again() -> None:
    engine = HeldEngine()
    async with (
        asking(engine, limits=ReferenceLimits(max_waiting=2, at_once=1)) as ask,
        anyio.create_task_group() as group,
    ):
        group.start_soon(ask, IDENTITY)
        group.start_soon(ask, IDENTITY)
        await ask.held(2, engine, working=1)
        error = await refused(ask, IDENTITY, BOB)
        assert (error.status, error.code) == (503, "queue_full")
        assert error.retry_after_s is not None
        engine.let.set()


async def test_a_hotkey_that_asks_for_too_much_at_once_leaves_room_for_others() -> None:
    engine = HeldEngine()
    few = ReferenceLimits(per_hotkey=Allowance(per_second=100.0, burst=100, concurrent=1))
    async with asking(engine, limits=few) as ask, anyio.create_task_group() as group:
        group.start_soon(ask, IDENTITY)
        await ask.held(1, engine, working=1)
        error = await refused(ask, IDENTITY)
        assert (error.status, error.code) == (429, "too_many_concurrent")
        group.start_soon(ask, IDENTITY, BOB)
        await ask.held(2, engine, working=2)
        engine.let.set()


async def test_a_hotkey_that_asks_too_often_is_told_to_wait() -> None:
    rare = ReferenceLimits(per_hotkey=Allowance(per_second=0.1, burst=1, concurrent=4))
    async with asking(TinyEngine(), limits=rare) as ask:
        await ask(IDENTITY)
        error = await refused(ask, IDENTITY)
        assert (error.status, error.code) == (429, "too_many_requests")
        assert error.retry_after_s is not None
        await ask(IDENTITY, BOB)


async def test_nothing_waits_for_ever() -> None:
    engine = HeldEngine()
    async with (
        asking(engine, limits=ReferenceLimits(at_once=1, max_wait_s=0.1)) as ask,
        anyio.create_task_group() as group,
    ):
        group.start_soon(ask, IDENTITY)
        await ask.held(1, engine, working=1)
        assert (await refused(ask, IDENTITY)).code == "waited_too_long"
        engine.let.set()
    async with asking(HeldEngine(), limits=ReferenceLimits(max_work_s=0.1)) as ask:
        assert (await refused(ask, IDENTITY)).code == "engine_unavailable"


async def test_whoever_hangs_up_frees_the_place() -> None:
    engine = HeldEngine()
    async with asking(engine, limits=ReferenceLimits(max_waiting=1)) as ask:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, IDENTITY)
            await ask.held(1, engine, working=1)
            group.cancel_scope.cancel()
        await ask.held(0, engine, working=0)
        engine.let.set()
        await ask(IDENTITY)
