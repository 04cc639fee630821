"""A torn last record is repaired, whatever tore it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from targon.ledger import (
    CorruptLog,
    Head,
    Snapshot,
    SqliteLog,
)
from targon.ledger.port import EMPTY
from tests.ledger.damage import (
    LARGE,
    PAGE,
    SHORT,
    TEARS,
    break_the_large_event,
    cut_off,
    names_in,
    overwrite,
    read,
    save_snapshot,
    size_of,
    story,
    write,
)
from tests.ledger.history import step_closed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
async def test_a_torn_last_record_is_repaired_and_logged(
    tear: Callable[[Path, int], None], path: Path
) -> None:
    records = await write(path, story())
    last = records[-1].seq
    tear(path, last)
    with capture_logs() as logs:
        assert await read(path) == records[:-1]
    assert [(entry["event"], entry["seq"]) for entry in logs] == [("torn_record_removed", last)]


async def test_a_repaired_log_goes_on(path: Path) -> None:
    records = await write(path, story())
    TEARS["half its event"](path, records[-1].seq)
    async with aclosing(await SqliteLog.open(path)) as log:
        head = Head(records[-2].seq, records[-2].hash)
        assert await log.head() == head
        again = await log.append([records[-1].event], expected=head)
    assert again == records[-1:]
    assert await read(path) == records


async def test_a_log_whose_only_record_is_torn_is_empty_again(path: Path) -> None:
    await write(path, story()[:1])
    TEARS["half its event"](path, 0)
    assert await read(path) == []


async def test_a_torn_last_record_is_found_behind_a_snapshot_of_it(path: Path) -> None:
    records = await write(path, story())
    await save_snapshot(path, records)
    TEARS["half its event"](path, records[-1].seq)
    async with aclosing(await SqliteLog.open(path)) as log:
        assert (await log.head()).seq == records[-2].seq
        assert await log.latest_snapshot() is None


async def test_a_reader_leaves_the_repair_to_the_writer(path: Path) -> None:
    records = await write(path, story())
    TEARS["half its event"](path, records[-1].seq)
    with pytest.raises(CorruptLog, match="a verifier that opens the log takes this torn last record off"):
        await read(path, read_only=True)


async def test_a_write_ahead_log_cut_in_mid_record_loses_that_record_alone(
    path: Path, tmp_path: Path
) -> None:
    torn = tmp_path / "copy" / path.name
    torn.parent.mkdir()
    async with aclosing(await SqliteLog.open(path)) as log:
        records = await log.append(story(), expected=EMPTY)
        records += await log.append([step_closed(99)], expected=Head(records[-1].seq, records[-1].hash))
        shutil.copy(path, torn)  # the files as a crash would leave them: nothing moved to the database yet
        wal = torn.with_name(torn.name + "-wal")
        shutil.copy(path.with_name(wal.name), wal)
    cut_off(wal, 100)
    assert await read(torn) == records[:-1]


async def test_garbage_behind_the_write_ahead_log_is_passed_over(path: Path, tmp_path: Path) -> None:
    torn = tmp_path / "copy" / path.name
    torn.parent.mkdir()
    async with aclosing(await SqliteLog.open(path)) as log:
        records = await log.append(story(), expected=EMPTY)
        shutil.copy(path, torn)
        wal = torn.with_name(torn.name + "-wal")
        shutil.copy(path.with_name(wal.name), wal)
    with wal.open("ab") as file:
        file.write(os.urandom(5_000))
    assert await read(torn) == records


async def test_garbage_behind_the_database_is_passed_over(path: Path) -> None:
    records = await write(path, story())
    with path.open("ab") as file:
        file.write(os.urandom(5_000))
    assert await read(path) == records


async def test_a_file_cut_within_its_last_record_loses_that_record_alone(path: Path) -> None:
    records = await write(path, SHORT, LARGE)
    cut_off(path, PAGE - 1)
    with capture_logs() as logs:
        assert await read(path) == records[:-1]
    assert [(entry["event"], entry["seq"]) for entry in logs] == [("torn_record_removed", records[-1].seq)]


async def test_a_file_that_lost_a_page_of_its_last_record_is_written_anew_without_it(path: Path) -> None:
    records = await write(path, SHORT, LARGE)
    cut_off(path, PAGE)
    with capture_logs() as logs:
        assert await read(path) == records[:-1]
    assert [(entry["event"], entry["records"]) for entry in logs] == [("log_salvaged", len(records) - 1)]
    assert names_in(path.parent) == {path.name + suffix for suffix in ("", ".damaged", ".writer")}


async def test_garbage_in_the_last_page_loses_the_last_record_alone(path: Path) -> None:
    records = await write(path, SHORT, LARGE)
    overwrite(path, size_of(path) - PAGE, b"\xff" * PAGE)
    with capture_logs() as logs:
        assert await read(path) == records[:-1]
    assert [entry["event"] for entry in logs] == ["torn_record_removed"]


async def test_a_last_record_that_sqlite_cannot_read_is_left_out(path: Path) -> None:
    records = await write(path, SHORT, LARGE)
    break_the_large_event(path)
    with capture_logs() as logs:
        assert await read(path) == records[:-1]
    assert [entry["event"] for entry in logs] == ["log_salvaged"]


async def test_a_salvaged_log_goes_on(path: Path) -> None:
    records = await write(path, SHORT, LARGE)
    cut_off(path, PAGE)
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.append([LARGE], expected=Head(records[-2].seq, records[-2].hash))
    assert await read(path) == records


async def test_a_write_ahead_log_does_not_outlive_the_file_that_it_belongs_to(
    path: Path, tmp_path: Path
) -> None:
    records = await write(path, SHORT, LARGE)
    torn = tmp_path / "copy" / path.name
    torn.parent.mkdir()
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.save_snapshot(Snapshot(Head(2, records[2].hash), b"{}"))
        for suffix in ("", "-wal"):
            shutil.copy(path.with_name(path.name + suffix), torn.with_name(torn.name + suffix))
    break_the_large_event(torn)
    with closing(sqlite3.connect(torn)) as reader:  # whoever else has the file open keeps its log there
        reader.execute("SELECT seq FROM log").fetchall()
        assert await read(torn) == records[:-1]
    kept = {torn.name + suffix for suffix in ("", ".damaged", ".damaged-wal", ".writer")}
    assert kept <= names_in(torn.parent) <= kept | {torn.name + ".damaged-shm"}
    assert await read(torn) == records[:-1]


async def test_a_file_that_lost_only_snapshots_keeps_every_record(path: Path) -> None:
    records = await write(path, story())
    await save_snapshot(path, records, padding=20_000)
    cut_off(path, PAGE)
    assert await read(path) == records
