"""The thread in which a log's blocking calls are made."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import anyio
import pytest

from targon.ledger.sqlite.thread import CallThread

pytestmark = pytest.mark.anyio


@pytest.fixture
def calls() -> Iterator[CallThread]:
    thread = CallThread("calls of a test")
    yield thread
    thread.stop()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


async def test_calls_are_made_in_a_thread_of_their_own_in_the_order_asked_for(calls: CallThread) -> None:
    made: list[tuple[int, str]] = []

    async with anyio.create_task_group() as group:
        for number in range(5):

            def call(number: int = number) -> None:
                time.sleep(0.002 * (5 - number))
                made.append((number, threading.current_thread().name))

            group.start_soon(calls.call, call)

    assert made == [(number, "calls of a test") for number in range(5)]


async def test_the_loop_runs_on_while_a_call_blocks(calls: CallThread) -> None:
    go_on = threading.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(calls.call, lambda: go_on.wait(10))
        await anyio.sleep(0.01)
        go_on.set()

    assert await calls.call(go_on.is_set)


async def test_what_a_call_raises_its_caller_gets_and_nobody_else(calls: CallThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await calls.call(lambda: 1 // 0)

    assert await calls.call(lambda: 1) == 1


async def test_a_call_that_was_begun_is_waited_for_though_its_caller_is_cancelled(calls: CallThread) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def blocks() -> None:
        begun.set()
        go_on.wait(10)
        ended.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(calls.call, blocks)
        while not begun.is_set():
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()
        threading.Timer(0.02, go_on.set).start()

    assert ended == [True]


async def test_who_was_cancelled_before_has_nothing_called(calls: CallThread) -> None:
    made: list[bool] = []

    with anyio.CancelScope() as scope:
        scope.cancel()
        await calls.call(lambda: made.append(True))

    assert scope.cancelled_caught
    assert await calls.call(lambda: list(made)) == []


async def test_a_thread_that_is_stopped_makes_what_it_was_asked_before_and_ends() -> None:
    calls = CallThread("a thread that ends")
    made = calls.call(lambda: time.sleep(0.02))

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: made)
        await anyio.sleep(0.005)
        calls.stop()

    with anyio.fail_after(5):
        while "a thread that ends" in threads():
            await anyio.sleep(0.001)
