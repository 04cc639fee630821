"""Copies of a log, made while it is written, and restored: what follows from them is what followed from the log."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from targon.ledger import CorruptLog, Event, Log, Record, Snapshot, Standings, migrate, replay
from targon.ledger.port import EMPTY
from targon.protocol.primitives import Uid
from targon.protocol.tiers import Tier
from tests.ledger.damage import alter
from tests.ledger.history import (
    ALICE,
    BOB,
    CAROL,
    History,
    attempt,
    fails,
    folded,
    passes,
    step_closed,
    verdict,
    weights_proposed,
    weights_set,
)
from tests.ledger.redis_server import RedisServer, redis_server
from tests.ledger.test_conviction import convicted, with_evidence
from tests.ledger.worlds import RedisWorld, SqliteWorld, World

pytestmark = pytest.mark.anyio

WRITTEN = 40
"""Steps that are written meanwhile."""


def eventful() -> History:
    """Tiers that rose and fell, a conviction, weights that were set, weights and an attempt whose fate is open."""
    history = History.begun(ALICE, BOB, CAROL)
    block = 0
    for interval in range(4):
        for _ in range(4):
            block += 1
            history.step(
                block, *passes(ALICE, 6), *(fails if interval == 3 else passes)(BOB, 6), (CAROL, "pass")
            )
        history.turn(interval, block)
    block += 1
    history.add(attempt(CAROL, block))
    number = history.next - 1
    history.add(with_evidence(number), convicted(CAROL, number, block=block), step_closed(block))
    history.add(weights_set({0: 65_535, 1: 900}, block))
    history.step(block + 1, *passes(ALICE, 2))
    history.add(weights_proposed({0: 65_535}, block + 1))
    history.add(attempt(BOB, block + 2))
    return history


EVENTFUL = eventful()


def test_the_log_has_all_that_could_get_lost() -> None:
    standings = EVENTFUL.standings
    alice, bob, carol = standings.provers()
    assert alice.tier > bob.tier >= Tier.BRONZE
    assert (carol.convictions, carol.tier) == (1, Tier.BRONZE)
    assert standings.last_weights == {0: 65_535, 1: 900}
    assert len(standings.proposals) == len(standings.open_attempts) == 1
    weights: Any = standings.weights()
    assert weights[Uid(0)] == 65_535


@dataclass
class Verifier:
    """A writer of a log, as a verifier is one."""

    log: Log
    standings: Standings

    async def append(self, *events: Event) -> None:
        for record in await self.log.append(events, expected=self.standings.head):
            self.standings.apply(record)

    async def step(self) -> None:
        """Close what is open, as after a crash, then ask two provers."""
        for number in list(self.standings.open_attempts):
            await self.append(verdict(number, "inconclusive"))
        block = max(self.standings.block, self.standings.stepped_block) + 1
        first = self.standings.head.seq + 1
        await self.append(attempt(ALICE, block), attempt(BOB, block))
        await self.append(verdict(first), verdict(first + 1, "fail"), step_closed(block))

    async def snapshot(self) -> None:
        await self.log.save_snapshot(Snapshot(self.standings.head, self.standings.to_snapshot()))


@asynccontextmanager
async def writing(world: World) -> AsyncGenerator[Verifier, None]:
    """The eventful log, to which its verifier keeps writing until it has written enough."""
    async with world.open() as log:
        if await log.head() == EMPTY:
            await log.append(EVENTFUL.events, expected=EMPTY)
        verifier = Verifier(log, await replay(log))
        begun = anyio.Event()

        async def work() -> None:
            for number in range(WRITTEN):
                await verifier.step()
                if number == 3:
                    await verifier.snapshot()
                    begun.set()
                await anyio.sleep(0.002)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await begun.wait()
            yield verifier


async def records_of(world: World) -> list[Record]:
    async with world.open(read_only=True) as log:
        return [record async for record in log.read()]


async def check_restored(original: World, copy: World) -> None:
    """The copy is the original as it was at the copy's end; and a verifier goes on from there as it would have."""
    records, restored = await records_of(original), await records_of(copy)
    assert len(EVENTFUL.records) < len(restored) <= len(records)
    assert restored == records[: len(restored)]
    before = folded(records[: len(restored)])
    async with copy.open() as log:
        assert await log.latest_snapshot() is not None
        verifier = Verifier(log, await replay(log))
        after = verifier.standings
        assert (await log.head(), after.head) == (before.head, before.head)
        assert after.to_snapshot() == before.to_snapshot()
        assert after.weights() == before.weights()
        assert after.last_weights == before.last_weights
        await verifier.step()
        went_on = [record async for record in log.read(len(restored))]
        assert (await replay(log)).to_snapshot() == after.to_snapshot()
    assert went_on[0].prev == before.head.hash
    for record in went_on:
        before.apply(record)
    assert before.to_snapshot() == after.to_snapshot()


# what copies a file


async def by_migration(source: Path, target: Path) -> None:
    async with SqliteWorld(source).open(read_only=True) as old, SqliteWorld(target).open() as new:
        await migrate(old, new, lambda *_: None)


async def by_vacuum(source: Path, target: Path) -> None:
    def vacuum() -> None:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))

    await anyio.to_thread.run_sync(vacuum)


async def by_backup(source: Path, target: Path) -> None:
    def backup() -> None:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)

    await anyio.to_thread.run_sync(backup)


@pytest.mark.parametrize("copied", [by_migration, by_vacuum, by_backup])
async def test_a_file_that_was_copied_while_it_was_written_is_the_log(
    copied: Callable[[Path, Path], Awaitable[None]], tmp_path: Path
) -> None:
    original, copy = SqliteWorld(tmp_path / "log.sqlite"), SqliteWorld(tmp_path / "copy.sqlite")
    async with writing(original) as verifier:
        head = verifier.standings.head
        await copied(original.path, copy.path)
    assert verifier.standings.head.seq > head.seq
    await check_restored(original, copy)


async def test_a_log_in_redis_that_was_copied_into_a_file_while_it_was_written_is_the_log(
    empty_redis: RedisServer, tmp_path: Path
) -> None:
    original, copy = RedisWorld(empty_redis.address), SqliteWorld(tmp_path / "copy.sqlite")
    async with writing(original), original.open(read_only=True) as old, copy.open() as new:
        done = await migrate(old, new, lambda *_: None)
    assert done.head.seq < (await records_of(original))[-1].seq
    await check_restored(original, copy)


async def test_a_log_in_redis_is_restored_from_a_file(empty_redis: RedisServer, tmp_path: Path) -> None:
    original, copy = SqliteWorld(tmp_path / "log.sqlite"), RedisWorld(empty_redis.address)
    async with writing(original):
        pass
    async with original.open(read_only=True) as old, copy.open() as new:
        await migrate(old, new, lambda *_: None)
    await check_restored(original, copy)


async def test_a_redis_whose_append_only_file_was_copied_comes_back_with_the_log(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    original = RedisWorld(own_redis.address)
    async with writing(original):
        pass
    own_redis.command("BGREWRITEAOF")
    await until_rewritten(own_redis)
    folder = tmp_path / "restored"
    await anyio.to_thread.run_sync(shutil.copytree, own_redis.folder, folder)
    async with original.open() as log:  # it goes on, and its copy stays as it was
        await Verifier(log, await replay(log)).step()
    with redis_server(folder, password=own_redis.address.password) as server:
        await check_restored(original, RedisWorld(server.address))


async def until_rewritten(server: RedisServer) -> None:
    """An append-only file is to be copied when it isn't being rewritten."""
    with anyio.fail_after(20):
        while True:
            persistence = server.command("INFO", "persistence")
            if not (persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"]):
                return
            await anyio.sleep(0.02)


async def test_a_copy_that_was_altered_is_not_restored_unseen(tmp_path: Path) -> None:
    original, copy = SqliteWorld(tmp_path / "log.sqlite"), SqliteWorld(tmp_path / "copy.sqlite")
    async with writing(original):
        await by_vacuum(original.path, copy.path)
    alter(copy.path, """UPDATE records SET event = replace(event, '"pass"', '"fail"') WHERE seq = 30""")
    with pytest.raises(CorruptLog, match=r"^record 30: its content is not what its hash"):
        await check_restored(original, copy)
