"""Damage beyond the last record is named, and nothing is repaired."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from targon.ledger import (
    CorruptLog,
    Head,
    SqliteLog,
    chain_records,
    record_hash,
)
from targon.ledger.port import EMPTY
from tests.ledger.damage import (
    PAGE,
    TEARS,
    alter,
    cut_off,
    overwrite,
    read,
    save_snapshot,
    size_of,
    story,
    write,
)
from tests.ledger.history import step_closed

pytestmark = pytest.mark.anyio


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
