"""Which record holds which receipt, over restarts and crashes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from targon.ledger import SqliteLog
from targon.protocol.primitives import Digest
from targon.verifier import Journal
from targon.verifier.receipt_index import FILE, Place, ReceiptIndex
from tests.ledger.history import ALICE, answered, history_with_routes, inference, receipt, verdict

pytestmark = pytest.mark.anyio


def id_of(number: int) -> Digest:
    return Digest(f"{number:064x}")


async def serve(journal: Journal, *, audited: bool = False) -> tuple[int, int]:
    """One inference, answered; its number and its record."""
    number = journal.head.seq + 1
    asked = inference(ALICE, 1).model_copy(update={"request_digest": id_of(number)})
    told = answered(number, ALICE, audited=audited)
    told = told.model_copy(update={"receipt": receipt(number, ALICE, id_of(number))})
    await journal.append(asked, told)
    return number, number + 1


@asynccontextmanager
async def opened(folder: Path, log: str = "log.sqlite") -> AsyncGenerator[tuple[Journal, ReceiptIndex]]:
    stored = await SqliteLog.open(folder / log)
    journal = await Journal.open(stored)
    if journal.standings.opened is None:
        await journal.append(*history_with_routes(ALICE).events)
    index = ReceiptIndex.open(folder)
    await index.catch_up(journal)
    yield journal, index
    index.close()
    await stored.aclose()


async def test_a_receipt_is_found_before_and_after_it_is_written_down(tmp_path: Path) -> None:
    async with opened(tmp_path) as (journal, index):
        number, record = await serve(journal, audited=True)
        assert await index.find(id_of(number)) == Place(number, record, None)
        await index.write()
        assert await index.find(id_of(number)) == Place(number, record, None)
        await journal.append(verdict(number))
        assert await index.find(id_of(number)) == Place(number, record, record + 1)
        await index.write()
        await index.write()
        assert await index.find(id_of(number)) == Place(number, record, record + 1)
        assert await index.find(id_of(9_999)) is None


async def test_what_a_crash_lost_is_read_from_the_log_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as (journal, index):
        first = await serve(journal)
        await index.write()
        second = await serve(journal, audited=True)
        await journal.append(verdict(second[0]))
    async with opened(tmp_path) as (journal, index):
        assert await index.find(id_of(first[0])) == Place(*first, None)
        assert await index.find(id_of(second[0])) == Place(*second, second[1] + 1)
        third = await serve(journal)
        assert await index.find(id_of(third[0])) == Place(*third, None)


async def test_a_stop_while_it_is_written_loses_no_receipt(tmp_path: Path) -> None:
    async with opened(tmp_path) as (journal, index):
        first = await serve(journal)
        async with anyio.create_task_group() as stopped:
            stopped.start_soon(index.write)
            await anyio.lowlevel.checkpoint()  # it has taken out what is new
            stopped.cancel_scope.cancel()
        second = await serve(journal)
        await index.write()
        assert await index.find(id_of(first[0])) == Place(*first, None)
        assert await index.find(id_of(second[0])) == Place(*second, None)


def spoil(folder: Path, damage: str) -> None:
    for path in folder.glob(f"{FILE}*"):
        path.unlink()
    if damage == "garbage":
        (folder / FILE).write_bytes(b"no database" * 1_000)


@pytest.mark.parametrize("damage", ["missing", "garbage"])
async def test_a_missing_or_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    async with opened(tmp_path) as (journal, index):
        first = await serve(journal)
        await index.write()
    spoil(tmp_path, damage)
    async with opened(tmp_path) as (_, index):
        assert await index.find(id_of(first[0])) == Place(*first, None)


async def test_another_log_makes_another_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as (journal, index):
        first = await serve(journal)
        await serve(journal)
        await index.write()
    async with opened(tmp_path, "other.sqlite") as (journal, index):
        assert await index.find(id_of(first[0])) is None
        again = await serve(journal, audited=True)
        assert await index.find(id_of(again[0])) == Place(*again, None)


async def test_many_are_found_while_they_are_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as (journal, index), anyio.create_task_group() as group:
        group.start_soon(index.run)
        for _ in range(30):
            number, record = await serve(journal)
            assert await index.find(id_of(number)) == Place(number, record, None)
            group.start_soon(index.write)
        group.cancel_scope.cancel()
