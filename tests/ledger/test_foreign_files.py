"""Files that are no log, and places where there can be none."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from targon.ledger import (
    LogUnavailable,
    SqliteLog,
)
from tests.ledger.damage import PAGE, alter, cut_off, overwrite, read, size_of, story, write, write_diary
from tests.ledger.history import step_closed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_is_no_database_is_named(path: Path, read_only: bool) -> None:
    write_diary(path)
    with pytest.raises(
        LogUnavailable, match="is no log: it starts with b'dear diary, toda', expected an SQLite"
    ):
        await SqliteLog.open(path, read_only=read_only)
    assert size_of(path) == len("dear diary, today")


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_database_that_is_no_log_is_named(path: Path, read_only: bool) -> None:
    path.parent.mkdir()
    alter(path, "CREATE TABLE recipes (name TEXT)")
    with pytest.raises(LogUnavailable, match="is an SQLite database but no log: its application id is 0x0"):
        await SqliteLog.open(path, read_only=read_only)


async def test_a_log_of_a_newer_schema_is_refused(path: Path) -> None:
    await write(path, story())
    alter(path, "PRAGMA user_version = 2")
    with pytest.raises(LogUnavailable, match="has schema version 2, expected 1"):
        await SqliteLog.open(path)


async def test_a_log_that_is_not_there_cannot_be_read(path: Path) -> None:
    with pytest.raises(LogUnavailable, match="there is no log at"):
        await SqliteLog.open(path, read_only=True)


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnavailable, match=r"cannot write a log at"):
        await SqliteLog.open(tmp_path / "file" / "log.sqlite3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LogUnavailable, match=r"cannot open the log"):
        await SqliteLog.open(tmp_path / "folder")
    with pytest.raises(LogUnavailable, match=r"cannot open the log"):
        await SqliteLog.open(tmp_path / "folder", read_only=True)


async def test_a_database_whose_header_alone_is_left_is_refused(path: Path) -> None:
    await write(path, story())
    cut_off(path, size_of(path) - 60)
    with pytest.raises(LogUnavailable, match=r"cannot open the log|damaged beyond repair"):
        await SqliteLog.open(path)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_only_begins_like_a_database_is_refused(path: Path, read_only: bool) -> None:
    write_diary(path)
    overwrite(path, 0, b"SQLite format 3\x00" + b"\xff" * 2 * PAGE)
    with pytest.raises(LogUnavailable, match=r"cannot (open|read) the log .*not a database"):
        await SqliteLog.open(path, read_only=read_only)


async def test_a_log_that_loses_its_tables_cannot_be_read(path: Path) -> None:
    await write(path, story())
    async with aclosing(await SqliteLog.open(path, read_only=True)) as log:
        alter(path, "DROP TABLE records")
        with pytest.raises(LogUnavailable, match=r"cannot read the log .*no such table"):
            _ = [record async for record in log.read()]


async def test_a_writer_that_was_refused_leaves_no_lock(path: Path) -> None:
    write_diary(path)
    with pytest.raises(LogUnavailable):
        await SqliteLog.open(path)
    cut_off(path, size_of(path))
    assert await read(path) == []


async def test_a_read_only_log_cannot_be_written(path: Path) -> None:
    await write(path, story())
    async with aclosing(await SqliteLog.open(path, read_only=True)) as log:
        with pytest.raises(LogUnavailable, match=r"cannot write the log .*readonly"):
            await log.append([step_closed(99)], expected=await log.head())


async def test_a_log_can_be_read_with_other_tools(path: Path) -> None:
    records = await write(path, story())
    with closing(sqlite3.connect(path)) as connection:
        kinds = connection.execute("SELECT event ->> '$.kind' FROM records ORDER BY seq").fetchall()
    assert [kind for (kind,) in kinds] == [record.event.kind for record in records]
