"""Processes that die, and processes that meet."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from targon.ledger import Attempt, LogUnavailable, SqliteLog, Verdict, replay
from tests.ledger.worlds import World
from tests.ledger.writer_process import kill, lines, writer

pytestmark = pytest.mark.anyio


async def test_every_acknowledged_event_survives_kill_9_again_and_again(world: World) -> None:
    for appends in (3, 40, 101):
        with writer(world) as process:
            said = lines(process, appends) + kill(process)
        async with world.open() as log:
            hashes = {record.seq: record.hash async for record in log.read()}
        assert all(hashes[head.seq] == head.hash for head in said)
    async with world.open(read_only=True) as log:
        events = [record.event async for record in log.read()]
        standings = await replay(log)
    attempts = sum(isinstance(event, Attempt) for event in events)
    verdicts = sum(isinstance(event, Verdict) for event in events)
    provers = standings.provers()
    assert sum(prover.sent for prover in provers) == attempts
    assert sum(prover.attempts + prover.inconclusive for prover in provers) == verdicts
    assert verdicts == attempts - len(standings.open_attempts)


async def test_a_second_writer_is_refused_by_name_and_readers_are_welcome(world: World) -> None:
    with writer(world) as process:
        (said, *_) = lines(process, 5)
        named = rf"being written by process {process.pid}\b.*, expected no other"
        with pytest.raises(LogUnavailable, match=named):
            async with world.open():
                pass
        async with world.open(read_only=True) as log:
            early = await log.head()
            assert early.seq >= said.seq
            later = next(head for (head,) in iter(lambda: lines(process, 1), []) if head.seq > early.seq)
            assert (await log.head()).seq >= later.seq > early.seq
            assert (await replay(log)).head.seq >= later.seq
        kill(process)
    async with world.open() as log:
        assert (await log.head()).seq >= later.seq


async def test_a_reader_sees_a_new_log_whole_or_not_at_all(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.sqlite3"
        async with anyio.create_task_group() as group:
            group.start_soon(_begin, path)
            while True:
                try:
                    async with aclosing(await SqliteLog.open(path, read_only=True)) as log:
                        assert (await log.head()).seq == -1
                    break
                except LogUnavailable as error:
                    assert "there is no log" in str(error)  # noqa: PT017 - many tries, any may fail


async def _begin(path: Path) -> None:
    await (await SqliteLog.open(path)).aclose()
