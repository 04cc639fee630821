"""No more is asked of an engine at once than it has room for, and nothing that nobody waits for any more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest

from targon.engines.errors import EngineBusy, EngineUnavailable
from targon.engines.port import ScoreTask
from targon.engines.remote import RemoteEngine
from tests.engines.tasks import answer, ids_of

from .fake_vllm import (
    ASKED,
    COMPLETIONS,
    MODEL,
    as_event,
    engine_at,
    healthy_vllm,
    likely,
    prompt_ids,
    scored,
    sea_ids,
    told,
)
from .raw_server import Connection, handling
from .scripted_server import serving, stream

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = HEAD + b"".join(chunk(as_event(one)) for one in told()) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
SCORED = ScoreTask(ASKED.messages, sea_ids(), 5)


class Held:
    """A server that gives the first token of each answer, and the others when it is let go."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.asked = 0
        self.left = 0
        self.changed = anyio.Event()

    async def handle(self, connection: Connection) -> None:
        while await connection.request():
            self.asked += 1
            await self._change()
            await connection.say(HEAD + chunk(as_event(told()[0])))
            async with anyio.create_task_group() as group:
                group.start_soon(self._leaves, connection, group.cancel_scope)
                await self.go.wait()
                group.cancel_scope.cancel()
            await connection.say(STREAM[len(HEAD + chunk(as_event(told()[0]))) :])

    async def until(self, *, asked: int = 0, left: int = 0) -> None:
        """Wait until so many requests came, and so many were given up."""
        with anyio.fail_after(60):
            while self.asked < asked or self.left < left:
                await self.changed.wait()

    async def _leaves(self, connection: Connection, scope: anyio.CancelScope) -> None:
        await connection.left()
        self.left += 1
        await self._change()
        scope.cancel()

    async def _change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@asynccontextmanager
async def held(max_requests: int = 1, max_queue: int = 1) -> AsyncIterator[tuple[Held, RemoteEngine]]:
    server = Held()
    async with (
        handling(server.handle) as url,
        engine_at(url, max_requests=max_requests, max_queue=max_queue) as engine,
    ):
        yield server, engine


async def waiting(count: int = 1) -> None:
    """Give tasks that were started time to queue."""
    for _ in range(5 * count):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(("max_requests", "max_queue"), [(1, 0), (1, 1), (2, 3)])
async def test_more_requests_than_there_is_room_for_are_refused_at_once(
    max_requests: int, max_queue: int
) -> None:
    async with held(max_requests, max_queue) as (server, engine), anyio.create_task_group() as group:
        for _ in range(max_requests + max_queue):
            group.start_soon(answer, engine, ASKED)
        await server.until(asked=max_requests)
        with anyio.fail_after(30):  # what is held until then would keep them for ever
            with pytest.raises(EngineBusy, match=f"{max_queue} requests wait for it already"):
                await answer(engine, ASKED)
            with pytest.raises(EngineBusy):
                await engine.score([SCORED])
        assert server.asked == max_requests
        server.go.set()
    assert server.asked == max_requests + max_queue


async def test_there_is_room_again_once_an_answer_has_ended() -> None:
    async with held(1, 0) as (server, engine):
        server.go.set()
        for _ in range(3):
            assert ids_of(await answer(engine, ASKED)) == sea_ids()


async def test_a_caller_that_waits_no_longer_frees_its_place() -> None:
    async with held(1, 1) as (server, engine), anyio.create_task_group() as group:
        group.start_soon(answer, engine, ASKED)
        await server.until(asked=1)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(answer, engine, ASKED)
            await waiting()
            with pytest.raises(EngineBusy):
                await answer(engine, ASKED)
            impatient.cancel_scope.cancel()
        group.start_soon(answer, engine, ASKED)
        await waiting()
        server.go.set()
    assert server.asked == 2


async def test_a_caller_that_is_cancelled_while_it_is_served_frees_its_place() -> None:
    async with held(1, 0) as (server, engine):
        async with anyio.create_task_group() as group:
            group.start_soon(answer, engine, ASKED)
            await server.until(asked=1)
            group.cancel_scope.cancel()
        await server.until(left=1)
        server.go.set()
        assert ids_of(await answer(engine, ASKED)) == sea_ids()


async def test_closing_an_answer_closes_its_connection_and_frees_its_place() -> None:
    async with held(1, 0) as (server, engine):
        async with aclosing(engine.generate(ASKED)) as steps:
            assert (await anext(steps)).token_id == sea_ids()[0]
            assert server.left == 0
        await server.until(left=1)
        server.go.set()
        assert ids_of(await answer(engine, ASKED)) == sea_ids()


async def test_a_stop_string_closes_the_connection() -> None:
    asked = type(ASKED)(ASKED.messages, ASKED.sampling.model_copy(update={"stop": ("The",)}), 0)
    async with held(1, 0) as (server, engine):
        assert [step.finish_reason for step in await answer(engine, asked)] == ["stop_string"]
        await server.until(left=1)


async def test_a_check_needs_no_place() -> None:
    async with (
        serving({**healthy_vllm(), COMPLETIONS: [stream(*told(), delay_s=0.1)]}) as server,
        engine_at(server.url, max_requests=1, max_queue=0) as engine,
        aclosing(engine.generate(ASKED)) as steps,
    ):
        await anext(steps)
        await engine.check()


# connections


@pytest.mark.parametrize("rudely", [False, True], ids=["closed", "reset"])
async def test_a_pooled_connection_that_is_closed_as_it_is_used_is_replaced(rudely: bool) -> None:
    """The server closes it just when the second request comes, which is too late to be seen before it is sent."""
    asked: list[int] = []

    async def handle(connection: Connection) -> None:
        while await connection.request():
            asked.append(connection.number)
            if asked == [0, 0]:
                if rudely:
                    connection.reset()
                return
            body = {"prompt": [*prompt_ids(), *sea_ids()], "prompt_logprobs": 5}
            await connection.answer(json.dumps(scored(body, likely, MODEL, f"cmpl-{len(asked)}")).encode())

    async with handling(handle) as url, engine_at(url) as engine:
        for _ in range(2):
            assert len(await engine.score([SCORED])) == 1
    assert asked == [0, 0, 1]


async def test_a_pooled_connection_that_was_closed_while_idle_is_replaced() -> None:
    asked: list[int] = []

    async def handle(connection: Connection) -> None:
        await connection.request()
        asked.append(connection.number)
        await connection.answer(b'{"data": [{"id": "m", "owned_by": "vllm"}]}')

    async with handling(handle) as url, engine_at(url) as engine:
        for _ in range(4):
            with pytest.raises(EngineUnavailable, match="another engine answers there now"):
                await engine.check()
    assert asked == list(range(8))


async def test_the_connection_of_an_answer_that_was_read_to_its_end_is_used_again() -> None:
    asked: list[int] = []

    async def handle(connection: Connection) -> None:
        while await connection.request():
            asked.append(connection.number)
            await connection.say(STREAM)

    async with handling(handle) as url, engine_at(url) as engine:
        for _ in range(3):
            assert ids_of(await answer(engine, ASKED)) == sea_ids()
    assert asked == [0, 0, 0]


async def test_an_engine_that_closes_every_connection_unanswered_is_asked_twice() -> None:
    asked: list[int] = []

    async def handle(connection: Connection) -> None:
        if await connection.request():
            asked.append(connection.number)

    async with handling(handle) as url, engine_at(url) as engine:
        with pytest.raises(EngineUnavailable, match="it broke off"):
            await answer(engine, ASKED)
    assert asked == [0, 1]


@pytest.mark.parametrize("length", [0, 10, 2_000])
async def test_an_answer_that_broke_off_is_not_asked_for_again(length: int) -> None:
    asked: list[int] = []

    async def handle(connection: Connection) -> None:
        if await connection.request():
            asked.append(connection.number)
            await connection.say(STREAM[: len(HEAD) + length])

    async with handling(handle) as url, engine_at(url) as engine:
        with pytest.raises(EngineUnavailable, match="broke off"):
            await answer(engine, ASKED)
    assert asked == [0]
