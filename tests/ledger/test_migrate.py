"""Logs that are moved between adapters, in either direction, with interruptions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from targon.ledger import (
    CorruptLog,
    Head,
    Log,
    Migrated,
    MigrationRefused,
    Record,
    Snapshot,
    migrate,
    record_hash,
    replay,
)
from targon.ledger.migrate import BATCH
from targon.ledger.port import EMPTY
from tests.ledger.damage import alter, story
from tests.ledger.history import ALICE, BOB, History, folded, step_closed
from tests.ledger.redis_server import RedisServer
from tests.ledger.worlds import RedisWorld, SqliteWorld, World

pytestmark = pytest.mark.anyio

LONG = History.begun(ALICE, BOB)
for block in range(1, 200):
    LONG.step(block, (ALICE, "pass"), (BOB, "fail"))


@pytest.fixture
def sqlite(path: Path) -> SqliteWorld:
    return SqliteWorld(path)


@pytest.fixture(params=["to redis", "to sqlite"])
def worlds(request: pytest.FixtureRequest, sqlite: World, empty_redis: RedisServer) -> tuple[World, World]:
    """A source and a target."""
    redis = RedisWorld(empty_redis.address)
    return (sqlite, redis) if request.param == "to redis" else (redis, sqlite)


def silent(done: int, total: int) -> None:
    pass


def stopping_after(batches: int) -> Callable[[int, int], None]:
    """A progress that is interrupted as Ctrl-C does it."""
    left = batches

    def count(done: int, total: int) -> None:
        nonlocal left
        if done > 0:
            left -= 1
        if left == 0:
            raise KeyboardInterrupt

    return count


async def fill(world: World, snapshot_at: int | None = None) -> list[Record]:
    async with world.open() as log:
        records = await log.append(LONG.events, expected=EMPTY)
        if snapshot_at is not None:
            standings = folded(records[: snapshot_at + 1])
            await log.save_snapshot(Snapshot(standings.head, standings.to_snapshot()))
    return records


async def moved(worlds: tuple[World, World], progress: Callable[[int, int], None] = silent) -> Migrated:
    async with worlds[0].open(read_only=True) as source, worlds[1].open() as target:
        return await migrate(source, target, progress)


async def everything(log: Log) -> list[Record]:
    return [record async for record in log.read()]


async def test_a_log_is_moved_with_the_same_hashes_and_its_newest_snapshot(
    worlds: tuple[World, World],
) -> None:
    records = await fill(worlds[0], snapshot_at=500)
    told: list[tuple[int, int]] = []
    done = await moved(worlds, lambda have, total: told.append((have, total)))
    total = len(records)
    assert done == Migrated(LONG.head, total, Head(500, records[500].hash), LONG.head)
    assert told == [(have, total) for have in (*range(0, total, BATCH), total)]
    async with worlds[0].open() as source, worlds[1].open() as target:
        assert await everything(target) == await everything(source) == records
        assert await target.latest_snapshot() == await source.latest_snapshot()
        assert (await replay(target)).to_snapshot() == LONG.standings.to_snapshot()


async def test_a_log_moved_there_and_back_is_the_same(
    sqlite: SqliteWorld, empty_redis: RedisServer, tmp_path: Path
) -> None:
    records = await fill(sqlite)
    redis, back = RedisWorld(empty_redis.address), SqliteWorld(tmp_path / "back.sqlite3")
    await moved((sqlite, redis))
    await moved((redis, back))
    async with back.open() as log:
        assert await everything(log) == records
        assert await log.latest_snapshot() is None


async def test_a_migration_that_was_interrupted_goes_on_where_it_stopped(worlds: tuple[World, World]) -> None:
    records = await fill(worlds[0])
    for copied in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            await moved(worlds, stopping_after(copied))
    async with worlds[1].open(read_only=True) as target:
        assert (await target.head()).seq == 2 * BATCH - 1
    done = await moved(worlds)
    assert done.copied == len(records) - 2 * BATCH
    async with worlds[1].open() as target:
        assert await everything(target) == records


async def test_a_log_that_was_moved_already_is_checked_again_and_left(worlds: tuple[World, World]) -> None:
    await fill(worlds[0])
    await moved(worlds)
    assert (await moved(worlds)).copied == 0


async def test_an_empty_log_is_moved(worlds: tuple[World, World]) -> None:
    async with worlds[0].open():
        pass
    assert await moved(worlds) == Migrated(EMPTY, 0, None, EMPTY)


async def test_a_target_that_holds_another_log_is_refused_and_left(worlds: tuple[World, World]) -> None:
    await fill(worlds[0])
    async with worlds[1].open() as target:
        others = await target.append(story(), expected=EMPTY)
    with pytest.raises(MigrationRefused, match=r"the target holds another log: got record \d+ .*, expected"):
        await moved(worlds)
    async with worlds[1].open() as target:
        assert await everything(target) == others


async def test_a_target_that_goes_on_beyond_the_source_is_refused(worlds: tuple[World, World]) -> None:
    await fill(worlds[0])
    await moved(worlds)
    async with worlds[1].open() as target:
        await target.append([step_closed(999)], expected=LONG.head)
    with pytest.raises(MigrationRefused, match="wrong way round"):
        await moved(worlds)


async def test_a_source_that_goes_on_while_it_is_copied_is_copied_as_it_was_and_the_rest_comes_next(
    worlds: tuple[World, World],
) -> None:
    await fill(worlds[0])
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(worlds[0].open())
        source = await stack.enter_async_context(worlds[0].open(read_only=True))
        target = await stack.enter_async_context(worlds[1].open())
        standings, block = folded(await everything(writer)), 999

        async def write_more() -> None:
            nonlocal block
            for record in await writer.append([step_closed(block)], expected=standings.head):
                standings.apply(record)
            block += 1
            await writer.save_snapshot(Snapshot(standings.head, standings.to_snapshot()))

        class Busy:
            """The source, whose verifier appends whenever somebody asks it anything."""

            def __getattr__(self, name: str) -> object:
                return getattr(source, name)

            async def head(self) -> Head:
                head = await source.head()
                await write_more()
                return head

            async def latest_snapshot(self) -> Snapshot | None:
                snapshot = await source.latest_snapshot()
                await write_more()
                return snapshot

        first = await migrate(Busy(), target, silent)
        second = await migrate(source, target, silent)
        assert first.head.seq == LONG.head.seq + 1
        assert first.source.seq == LONG.head.seq + 2
        assert (second.copied, second.head) == (2, standings.head)
        assert second.snapshot == standings.head
        assert (await replay(target)).to_snapshot() == standings.to_snapshot()


async def test_a_source_that_is_damaged_is_not_moved(sqlite: SqliteWorld, empty_redis: RedisServer) -> None:
    await fill(sqlite, snapshot_at=700)
    alter(sqlite.path, "UPDATE records SET event = '' WHERE seq = 300")
    with pytest.raises(CorruptLog, match=r"^record 300: "):
        await moved((sqlite, RedisWorld(empty_redis.address)))


async def test_a_record_that_cannot_be_written_as_it_was_is_named_and_not_written(
    sqlite: SqliteWorld, empty_redis: RedisServer
) -> None:
    async with sqlite.open() as log:
        records = await log.append(LONG.events[:4], expected=EMPTY)
    event = records[3].event.to_bytes() + b" "  # the same event, not in its canonical form
    hash_ = record_hash(3, records[2].hash, event)
    alter(sqlite.path, "UPDATE records SET event = ?, hash = ? WHERE seq = 3", event.decode(), hash_)
    alter(sqlite.path, "UPDATE log SET hash = ?", hash_)
    redis = RedisWorld(empty_redis.address)
    with pytest.raises(CorruptLog, match=r"^record 3: it cannot be written as it was"):
        await moved((sqlite, redis))
    async with redis.open() as target:
        assert await target.head() == EMPTY
