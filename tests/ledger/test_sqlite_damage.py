"""What becomes of a log whose file was damaged."""

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
    Event,
    Head,
    LogUnavailable,
    Record,
    Snapshot,
    SqliteLog,
    chain_records,
    record_hash,
)
from targon.ledger.port import EMPTY
from tests.ledger.history import ALICE, History, attempt, folded, step_closed, verdict

pytestmark = pytest.mark.anyio

PAGE = 4096


def story(blocks: int = 12) -> list[Event]:
    history = History.begun(ALICE)
    for block in range(1, blocks + 1):
        history.step(block, (ALICE, "pass"))
    return history.events


async def write(path: Path, events: list[Event], *more: Event) -> list[Record]:
    """A log of some events, and of more, each appended on its own."""
    async with aclosing(await SqliteLog.open(path)) as log:
        records = await log.append(events, expected=EMPTY)
        for event in more:
            records += await log.append([event], expected=Head(records[-1].seq, records[-1].hash))
    return records


async def read(path: Path, *, read_only: bool = False, start: int = 0) -> list[Record]:
    async with aclosing(await SqliteLog.open(path, read_only=read_only)) as log:
        return [record async for record in log.read(start)]


def alter(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def size_of(path: Path) -> int:
    return path.stat().st_size


def cut_off(path: Path, count: int) -> int:
    """Take bytes off a file's end; returns what is left."""
    os.truncate(path, size_of(path) - count)
    return size_of(path)


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def break_the_large_event(path: Path) -> None:
    """Point from the first page of its own that it fills to a page that is not there."""
    data = path.read_bytes()
    page = next(at for at in range(0, len(data), PAGE) if data[at + 4 : at + 1_000] == b"9" * 996)
    overwrite(path, page, b"\xff" * 4)


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def write_diary(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("dear diary, today")


# -- a torn last record --------------------------------------------------------------------------------

TEARS: dict[str, Callable[[Path, int], None]] = {
    "half its event": lambda path, seq: alter(
        path, "UPDATE records SET event = substr(event, 1, length(event) / 2) WHERE seq = ?", seq
    ),
    "no event": lambda path, seq: alter(path, "UPDATE records SET event = '' WHERE seq = ?", seq),
    "bytes that are no text": lambda path, seq: alter(
        path, "UPDATE records SET event = CAST(x'ff00fe' AS TEXT) WHERE seq = ?", seq
    ),
    "another hash": lambda path, seq: alter(path, "UPDATE records SET hash = 'beef' WHERE seq = ?", seq),
    "another predecessor": lambda path, seq: alter(path, "UPDATE records SET prev = 'é' WHERE seq = ?", seq),
    "no row": lambda path, seq: alter(path, "DELETE FROM records WHERE seq = ?", seq),
}


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


SHORT = History.begun(ALICE).add(attempt(ALICE, 1)).events
"""Few enough records for one page, which lies early in the file."""

LARGE = verdict(len(SHORT) - 1, evidence={"margins": "9" * 10_000})
"""An event that fills pages of its own, at the file's end."""


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


# -- anything else -------------------------------------------------------------------------------------


async def save_snapshot(path: Path, records: list[Record], *, padding: int = 0) -> Snapshot:
    standings = folded(records)
    snapshot = Snapshot(standings.head, standings.to_snapshot() + b" " * padding)
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.save_snapshot(snapshot)
    return snapshot


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
async def test_a_wrong_record_in_the_middle_is_named(
    tear: Callable[[Path, int], None], path: Path, read_only: bool
) -> None:
    await write(path, story())
    tear(path, 7)
    with pytest.raises(CorruptLog, match=r"^record 7: ") as error:
        await read(path, read_only=read_only)
    assert error.value.seq == 7


async def test_a_forged_record_with_a_hash_of_its_own_is_found_at_the_next(path: Path) -> None:
    records = await write(path, story())
    forged = chain_records([step_closed(500)], Head(6, records[6].hash))[0]
    data = forged.event.to_bytes().decode()
    alter(path, "UPDATE records SET event = ?, hash = ? WHERE seq = 7", data, forged.hash)
    with pytest.raises(CorruptLog, match=r"^record 8: it follows"):
        await read(path)


async def test_several_lost_records_are_no_torn_one(path: Path) -> None:
    records = await write(path, story())
    last = records[-1].seq
    alter(path, "DELETE FROM records WHERE seq >= ?", last - 1)
    with pytest.raises(
        CorruptLog, match=f"^record {last - 1}: it is missing; the log goes on to record {last}"
    ):
        await read(path)


async def test_records_beyond_the_logs_end_are_refused(path: Path) -> None:
    records = await write(path, story())
    alter(path, "UPDATE log SET seq = ?, hash = ?", records[-3].seq, records[-3].hash)
    with pytest.raises(CorruptLog, match="stands beyond the log's end"):
        await read(path)


async def test_an_end_that_is_noted_wrongly_is_refused(path: Path) -> None:
    records = await write(path, story())
    alter(path, "UPDATE log SET hash = ?", "00" * 32)
    with pytest.raises(CorruptLog, match=f"^record {records[-1].seq}: the log's end is noted as 000000"):
        await read(path)


async def test_an_end_that_is_not_noted_is_refused(path: Path) -> None:
    await write(path, story())
    alter(path, "DELETE FROM log")
    with pytest.raises(CorruptLog, match="the log's end is noted 0 times"):
        await read(path)


async def test_history_before_a_snapshot_is_checked_when_it_is_read(path: Path) -> None:
    records = await write(path, story())
    await save_snapshot(path, records)
    TEARS["half its event"](path, 3)
    assert await read(path, start=10) == records[10:]
    with pytest.raises(CorruptLog, match=r"^record 3: "):
        await read(path)


@pytest.mark.parametrize(("seq", "start"), [(3, 0), (3, 4)])
async def test_a_gap_before_a_snapshot_is_found_when_it_is_read(path: Path, seq: int, start: int) -> None:
    await save_snapshot(path, await write(path, story()))
    alter(path, "DELETE FROM records WHERE seq = ?", seq)
    with pytest.raises(CorruptLog, match=f"^record {seq}: it is missing"):
        await read(path, start=start)


async def test_a_tail_that_goes_missing_under_an_open_log_is_found(path: Path) -> None:
    records = await write(path, story())
    async with aclosing(await SqliteLog.open(path, read_only=True)) as log:
        alter(path, "DELETE FROM records WHERE seq > 5")
        with pytest.raises(
            CorruptLog, match=f"^record 6: it is missing: the log goes on to record {records[-1].seq}"
        ):
            _ = [record async for record in log.read()]


async def test_a_whole_record_that_is_no_event_is_named(path: Path) -> None:
    await write(path, story()[:1])
    alter(path, "UPDATE records SET event = '{}', hash = ?", hash_ := record_hash(0, EMPTY.hash, b"{}"))
    alter(path, "UPDATE log SET hash = ?", hash_)
    with pytest.raises(CorruptLog, match=r"^record 0: it is whole, but no event that this software knows"):
        await read(path)


async def test_a_file_that_lost_more_than_its_last_record_is_refused(path: Path) -> None:
    records = await write(path, story(60))
    damaged = cut_off(path, size_of(path) // 2)
    with pytest.raises(CorruptLog, match=r"^record \d+: .*malformed.*; the log goes on to record") as error:
        await read(path)
    assert 0 < error.value.seq < records[-1].seq - 1
    assert size_of(path) == damaged, "the file is left as it was"


async def test_a_page_of_garbage_in_the_middle_is_refused(path: Path) -> None:
    await write(path, story(60))
    overwrite(path, 6 * PAGE, b"\xff" * PAGE)
    with pytest.raises(CorruptLog, match=r"^record \d+: "):
        await read(path)
    with pytest.raises(CorruptLog, match=r"^record \d+: "):
        await read(path, read_only=True)


async def test_a_damaged_snapshot_is_passed_over(path: Path) -> None:
    records = await write(path, story())
    good = await save_snapshot(path, records[:9])
    await save_snapshot(path, records)
    alter(path, "UPDATE snapshots SET state = x'00' WHERE seq = ?", records[-1].seq)
    with capture_logs() as logs:
        async with aclosing(await SqliteLog.open(path)) as log:
            assert await log.latest_snapshot() == good
    assert {entry["event"] for entry in logs} == {"snapshot_damaged"}


# -- files that are no log -----------------------------------------------------------------------------


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
