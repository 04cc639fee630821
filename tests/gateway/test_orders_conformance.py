"""What every adapter of the port ``Orders`` must do: the dispatcher in this process, and one at the end of a line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from targon.gateway.errors import ServiceFailed
from targon.gateway.line import LineClient, LineServer
from targon.gateway.ports import Began, Delta, Finished, Orders
from targon.protocol import countersignatures
from targon.protocol.primitives import Digest
from targon.transport.errands import DeskError, NobodyFree, NotReady, UnknownModel, Unservable
from tests.gateway.dispatch_world import (
    LONG_S,
    SILENT,
    Parts,
    Script,
    World,
    a_world,
    all_of,
    an_order,
    answers,
    sends,
    until,
)
from tests.prover.world import CountingEngine
from tests.transport.world import STREAM_HEAD, token_event

pytestmark = pytest.mark.anyio

MANY = range(1, 401)


@pytest.fixture(params=["dispatcher", "line"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def a_line(orders: Orders, path: Path) -> AsyncIterator[LineClient]:
    """A client that has found its verifier."""
    client = LineClient(path, silence_s=LONG_S)
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: LineServer(orders, path).run(task_status=task_status))
        await tasks.start(lambda task_status: client.run(task_status=task_status))
        await until(lambda: not client.ailing)
        yield client
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def orders_of(
    adapter: str, tmp_path: Path, *provers: Script | CountingEngine
) -> AsyncIterator[tuple[Orders, World]]:
    async with a_world(*provers) as world:
        if adapter == "dispatcher":
            yield world.dispatcher, world
            return
        async with a_line(world.dispatcher, tmp_path / "line" / "gateway.sock") as client:
            yield client, world


async def read_out(parts: Parts) -> list[Began | Delta | Finished]:
    with anyio.fail_after(2 * LONG_S):
        return [part async for part in parts]


async def test_models_are_those_that_the_desk_offers(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path) as (orders, world):
        assert orders.models() == world.desk.models()


async def test_an_order_begins_comes_in_deltas_and_is_finished(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, CountingEngine()) as (orders, world):
        first, *deltas, last = await read_out(orders.fulfil(an_order()))
        assert isinstance(last, Finished)
        assert first == Began(last.settled.receipt_id)
        assert deltas == [Delta(f" {token}", (token,), (-0.5,)) for token in range(1, 5)]  # type: ignore[arg-type]
        assert last.response == world.desk.answers[0].response
        assert last.request == world.desk.taken[0].request


async def test_letters_of_every_script_come_as_they_were_sent(adapter: str, tmp_path: Path) -> None:
    text = 'é 漢字 😀 \u2028 "\\\n\x00'
    piece = token_event(5, text=text)
    async with (
        orders_of(adapter, tmp_path, sends(STREAM_HEAD, piece, then_waits_s=5.0)) as (orders, _),
        aclosing(orders.fulfil(an_order())) as parts,
    ):
        assert isinstance(await anext(parts), Began)
        assert await anext(parts) == Delta(text, (5,), None)  # type: ignore[arg-type]


async def test_many_orders_run_side_by_side(adapter: str, tmp_path: Path) -> None:
    texts: list[str] = []
    async with orders_of(adapter, tmp_path, answers(1, 2, 3, pause_s=0.02)) as (orders, _):

        async def one() -> None:
            texts.append((await all_of(orders.fulfil(an_order())))[0])

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
    assert texts == ["xxx"] * 20


async def test_one_order_after_another_is_served(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, CountingEngine()) as (orders, world):
        for _ in range(5):
            await all_of(orders.fulfil(an_order()))
        assert world.desk.told == [("answered", 0)] * 5


@pytest.mark.parametrize(
    "refusal",
    [
        NobodyFree("all are busy", 3.5),
        NotReady("the chain is away", 2.5),
        Unservable("max_tokens", "context_length_exceeded", "got 9, expected 8"),
        UnknownModel("gpt", ("tiny",)),
    ],
)
async def test_what_the_desk_refuses_is_refused_with_all_that_it_said(
    adapter: str, tmp_path: Path, refusal: DeskError
) -> None:
    async with orders_of(adapter, tmp_path, CountingEngine()) as (orders, world):
        world.desk.refusal = refusal
        with pytest.raises(type(refusal)) as caught:
            await read_out(orders.fulfil(an_order()))
        assert str(caught.value) == str(refusal)
        assert vars(caught.value) == vars(refusal)


async def test_an_answer_that_breaks_off_is_an_error_after_its_deltas(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, sends(STREAM_HEAD, token_event(5))) as (orders, world):
        parts = orders.fulfil(an_order())
        assert isinstance(await anext(parts), Began)
        assert isinstance(await anext(parts), Delta)
        with pytest.raises(ServiceFailed, match="broke off") as caught:
            await anext(parts)
        assert caught.value.begun
        assert await world.desk.until_told(1) == [("failed", 0)]


async def test_where_nobody_began_nothing_was_begun(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, sends()) as (orders, _):
        with pytest.raises(ServiceFailed, match="1 prover was asked") as caught:
            await read_out(orders.fulfil(an_order()))
        assert not caught.value.begun


async def test_who_closes_the_answer_hangs_up(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, answers(*MANY, pause_s=0.02)) as (orders, world):
        parts = orders.fulfil(an_order(max_tokens=400))
        await anext(parts)
        await parts.aclose()
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_who_is_cancelled_hangs_up(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, SILENT) as (orders, world):
        async with anyio.create_task_group() as user:
            user.start_soon(read_out, orders.fulfil(an_order()))
            await until(lambda: bool(world.desk.taken))
            user.cancel_scope.cancel()
        assert await world.desk.until_told(1) == [("user_left", 0)]


async def test_who_reads_slowly_gets_all_of_it(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, answers(*MANY)) as (orders, _):
        tokens = 0
        async for part in orders.fulfil(an_order(max_tokens=400)):
            if isinstance(part, Delta):
                tokens += len(part.token_ids)
                await anyio.sleep(0.0005)
        assert tokens == 400


async def test_a_receipt_can_be_had_again(adapter: str, tmp_path: Path) -> None:
    async with orders_of(adapter, tmp_path, CountingEngine()) as (orders, _):
        _, finished = await all_of(orders.fulfil(an_order()))
        filed = await orders.receipt(finished.settled.receipt_id)
        assert filed is not None
        countersignatures.check(filed.countersignature, filed.receipt)
        assert await orders.receipt(Digest("00" * 32)) is None
