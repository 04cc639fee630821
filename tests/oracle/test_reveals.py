"""Reveals: how many are sent at once, for how long, and what is said where one can't be read."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from targon.oracle.errors import Damaged, OracleError, StoreUnavailable
from targon.oracle.periods import PeriodFolder, PeriodTexts
from targon.protocol.private_inputs import CommitmentBody
from tests.oracle.service_world import WAIT_S, Place, an_oracle

pytestmark = pytest.mark.anyio


async def over(place: Place) -> None:
    """Go on until the first period may be read."""
    body = (await place.begun()).body
    place.chain.head = body.last + 6
    with anyio.fail_after(WAIT_S):
        while (await place.get("/v1/reveals/0")).status != 200:
            await anyio.sleep(0.01)


async def test_so_many_reveals_are_sent_at_once_and_each_that_ended_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.oracle.service.MAX_READERS", 2)
    reading, let, opened = threading.Semaphore(0), threading.Event(), PeriodFolder.open

    def held(folder: PeriodFolder, body: CommitmentBody) -> PeriodTexts:
        reading.release()
        let.wait(WAIT_S)
        return opened(folder, body)

    async with an_oracle(tmp_path) as place:
        await over(place)
        statuses: list[int] = []

        async def read() -> None:
            statuses.append((await place.get("/v1/reveals/0")).status)

        with monkeypatch.context() as patched:
            patched.setattr(PeriodFolder, "open", held)
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(read)
                for _ in range(2):
                    assert await anyio.to_thread.run_sync(reading.acquire, True, WAIT_S)
                reply = await place.get("/v1/reveals/0")
                assert (reply.status, reply.code) == (503, "overloaded")
                assert reply.headers["retry-after"]
                let.set()
        assert statuses == [200, 200]
        for _ in range(3):
            assert (await place.get("/v1/reveals/0")).status == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreUnavailable("periods: Input/output error"), 500, "internal"),
        (Damaged("periods", "period 0: its text is not what was committed to"), 410, "reveal_gone"),
    ],
)
async def test_a_reveal_that_can_not_be_read_is_refused_without_saying_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OracleError, status: int, code: str
) -> None:
    def failing(folder: PeriodFolder, body: CommitmentBody) -> PeriodTexts:
        raise error

    async with an_oracle(tmp_path) as place:
        await over(place)
        monkeypatch.setattr(PeriodFolder, "open", failing)
        reply = await place.get("/v1/reveals/0")
    assert (reply.status, reply.code) == (status, code)
    assert b"periods" not in reply.body
