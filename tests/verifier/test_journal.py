"""Many ask for an append at once: one append for all of them, each with its own records, nobody harmed by another."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from targon.ledger import Event, Head, InvalidHistory, LogUnavailable, Record, SqliteLog, chained
from targon.ledger.port import Pair
from targon.verifier import Journal
from tests.ledger.history import ALICE, BOB, attempt, history_with_routes, inference, skipped

pytestmark = pytest.mark.anyio


class CountingLog:
    """A real log that counts appends, and can be full."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log
        self.appends: list[int] = []
        self.full = False
        self.latest_snapshot, self.save_snapshot = log.latest_snapshot, log.save_snapshot
        self.head, self.read, self.aclose = log.head, log.read, log.aclose

    async def append(self, events: Sequence[Event], *, expected: Head) -> list[Record]:
        pairs = chained(events, expected)
        await self.write(pairs)
        return [record for record, _ in pairs]

    async def write(self, pairs: Sequence[Pair]) -> None:
        self.appends.append(len(pairs))
        if self.full:
            raise LogUnavailable("the disk is full")
        await self._log.write(pairs)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncGenerator[CountingLog]:
    log = await SqliteLog.open(tmp_path / "log.sqlite")
    yield CountingLog(log)
    await log.aclose()


@pytest.fixture
async def journal(log: CountingLog) -> Journal:
    journal = await Journal.open(log)
    await journal.append(*history_with_routes(ALICE, BOB).events)
    log.appends.clear()
    return journal


async def test_all_that_wait_are_written_together(journal: Journal, log: CountingLog) -> None:
    async with anyio.create_task_group() as group:
        for block in range(100):
            group.start_soon(journal.append, inference(ALICE, block))
    assert sum(log.appends) == 100
    assert len(log.appends) <= 3
    assert len(journal.standings.open_attempts) == 100


async def test_each_gets_its_own_records_and_nothing_stands_between_them(journal: Journal) -> None:
    got: dict[int, list[Record]] = {}

    async def write(block: int) -> None:
        got[block] = await journal.append_made(lambda at: [inference(ALICE, block), skipped(at, at)])

    async with anyio.create_task_group() as group:
        for block in range(50):
            group.start_soon(write, block)
    for block, (first, second) in got.items():
        assert first.event == inference(ALICE, block)
        assert second.seq == first.seq + 1
        assert second.event == skipped(first.seq, first.seq)
    assert journal.standings.head == journal.head


async def test_whoever_makes_events_sees_the_standings_just_before_them(journal: Journal) -> None:
    seen: list[int] = []

    def make(at: int) -> list[Event]:
        assert journal.standings.head.seq == at - 1
        alice = journal.standings.prover(ALICE)
        assert alice is not None
        seen.append(alice.sent)
        return [inference(ALICE, 1)]

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(journal.append_made, make)
    assert seen == list(range(20))


async def test_one_that_cannot_be_made_or_cannot_follow_harms_nobody_else(
    journal: Journal, log: CountingLog
) -> None:
    errors: list[Exception] = []

    def fails(_: int) -> list[Event]:
        raise KeyError("nobody is free")

    async def write(make) -> None:
        try:
            await journal.append_made(make)
        except (KeyError, InvalidHistory) as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(write, lambda _: [inference(ALICE, 1)])
        group.start_soon(write, fails)
        group.start_soon(write, lambda _: [inference("5" + "Z" * 47, 1)])
        group.start_soon(write, lambda _: [inference(BOB, 1)])
    assert {type(error) for error in errors} == {KeyError, InvalidHistory}
    assert sum(log.appends) == 2
    assert not journal.parted
    await journal.append(attempt(ALICE, 5))
    assert journal.standings.head == journal.head


async def test_an_append_is_seen_through_though_its_caller_is_cancelled(journal: Journal) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(journal.append, inference(ALICE, 1))
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    await journal.append(inference(BOB, 2))
    assert journal.standings.head == journal.head
    assert not journal.parted


async def test_a_log_that_takes_nothing_is_told_to_everybody_for_good(
    journal: Journal, log: CountingLog
) -> None:
    log.full = True
    told: list[Exception] = []

    async def write() -> None:
        try:
            await journal.append(inference(ALICE, 1))
        except LogUnavailable as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(write)
    assert len(told) == 10
    assert journal.parted
    log.full = False
    with pytest.raises(InvalidHistory):
        await journal.append(inference(ALICE, 1))
    assert journal.parted, "what the log holds is not known any more: only a restart helps"


async def test_followers_hear_of_each_record_once_and_in_order(journal: Journal) -> None:
    heard: list[int] = []
    journal.follow(lambda records: heard.extend(record.seq for record in records))
    first = journal.head.seq + 1
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(journal.append, inference(ALICE, 1))
    assert heard == list(range(first, first + 30))
    assert [record.seq async for record in journal.read(first)] == heard


async def test_snapshots_take_no_more_than_a_small_part_of_the_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, taken = [1_000.0], []

    async def slow() -> None:
        taken.append(now_s[0])
        now_s[0] += 1.0
        journal._snapshot_at = journal.head.seq

    monkeypatch.setattr("targon.verifier.journal.SNAPSHOT_EVERY", 1)
    monkeypatch.setattr("targon.verifier.journal.monotonic", lambda: now_s[0])
    monkeypatch.setattr(journal, "snapshot", slow)
    for _ in range(100):
        await journal.append(inference(ALICE, 1))
        await journal.snapshot_if_due()
        now_s[0] += 1.0
    assert taken == [1_000.0, 1_051.0]
