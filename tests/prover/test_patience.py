"""A deadline for each of many waits."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from targon.prover.patience import Patience

pytestmark = pytest.mark.anyio

SHORT_S = 0.05


def cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_wait_that_takes_too_long_ends_the_block_and_nothing_else() -> None:
    with anyio.fail_after(5):
        with Patience(SHORT_S) as patience:
            patience.begin()
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()  # the task itself isn't cancelled any more
    assert patience.lost
    assert cancellations() == 0


async def test_time_between_two_waits_is_nobodys_delay() -> None:
    with Patience(SHORT_S) as patience:
        patience.begin()
        patience.end()
        await anyio.sleep(3 * SHORT_S)
    assert not patience.lost


async def test_another_cancellation_goes_on_through_the_block() -> None:
    async def wait() -> None:
        with Patience(60.0) as patience:
            patience.begin()
            await anyio.sleep_forever()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_beside_the_lost_patience_goes_on_through_the_block() -> None:
    async def wait() -> None:
        with Patience(SHORT_S) as patience:
            patience.begin()
            try:
                await anyio.sleep_forever()
            finally:
                task.cancel()  # the server stops just then

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_scope_around_the_block_ends_it() -> None:
    with anyio.move_on_after(SHORT_S) as scope, Patience(60.0) as patience:
        patience.begin()
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not patience.lost


async def test_an_error_is_no_delay() -> None:
    with pytest.raises(ValueError, match="broken"), Patience(60.0) as patience:  # noqa: PT012
        patience.begin()
        raise ValueError("broken")
    assert not patience.lost
