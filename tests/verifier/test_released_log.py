"""The released part of a verifier's log, fetched over HTTP and checked record by record."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteReceiveStream

from targon.chain import EmbeddedChain
from targon.ledger import parse_event
from targon.transport import Allowance, Limits, Refused
from targon.transport.released import MAX_PAGE_RECORDS, PAGE_BYTES
from tests.verifier.shop import ME, OTHER, PROVER, Shop, a_chain, a_shop, get

pytestmark = pytest.mark.anyio


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[EmbeddedChain]:
    async with a_chain(tmp_path, block_seconds=12.0) as chain:
        yield chain


@pytest.fixture
async def shop(tmp_path: Path, chain: EmbeddedChain) -> AsyncIterator[Shop]:
    async with a_shop(tmp_path, chain) as shop:
        yield shop


async def page(shop: Shop, start: int) -> tuple[list[bytes], dict[str, Any]]:
    """One piece, read to its end over a connection of its own; its records' lines, and its last line."""
    reply = b""
    async with await anyio.connect_tcp("127.0.0.1", shop.axon.port) as stream:
        await stream.send(get(f"/v1/log?start={start}"))
        with anyio.fail_after(20):
            while not reply.endswith(b"0\r\n\r\n"):
                reply += await stream.receive()
    top, _, rest = reply.partition(b"\r\n\r\n")
    assert b"content-type: application/x-ndjson" in top
    body = b""
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    *lines, last, nothing = body.split(b"\n")
    assert nothing == b""
    return lines, json.loads(last)


async def test_what_is_released_is_what_lies_in_the_file_and_nothing_later_comes(shop: Shop):
    await shop.step(1)
    await shop.step(2, OTHER, "fail")
    released = await shop.release()
    await shop.step(shop.journal.standings.block + 1)
    lines, end = await page(shop, 0)
    stored = shop.lines()
    assert lines == stored[:released]
    assert len(stored) > released
    assert end == {"next": released, "released": released}


async def test_the_client_checks_every_record_and_hands_it_on(shop: Shop):
    await shop.step(1)
    released = await shop.release()
    records = await shop.records()
    assert [record.seq for record in records] == list(range(released))
    assert parse_event(records[0].event).kind == "log_opened"
    part = await shop.records(4, after=records[3].hash)
    assert part == records[4:]


async def test_before_anything_is_released_there_is_nothing(shop: Shop):
    await shop.step(1)
    assert await shop.records() == []


async def test_from_the_end_on_there_is_nothing_yet_and_later_there_is_more(shop: Shop):
    released = await shop.release()
    assert await shop.records(released) == []
    await shop.step(shop.journal.standings.block + 1)
    more = await shop.release()
    assert [record.seq for record in await shop.records(released)] == list(range(released, more))


async def test_a_start_beyond_what_is_released_is_refused_saying_what_is(shop: Shop):
    released = await shop.release()
    assert shop.journal.head.seq > released
    with pytest.raises(Refused) as caught:
        await shop.records(released + 1)
    assert (caught.value.status, caught.value.code) == (416, "not_released")
    assert (caught.value.got, caught.value.expected) == (released + 1, f"0 to {released}")


@pytest.mark.parametrize(
    "query",
    ["", "?start=", "?start=-1", "?start=01", "?start=1.5", "?start=1&stop=2", "?Start=1", "?start=%31"],
)
async def test_a_query_of_another_form_is_refused(shop: Shop, query: str):
    reply = await shop.get(f"/v1/log{query}")
    assert (reply.status, reply.code) == (400, "malformed_request")
    assert "start=N" in reply.error["expected"]


async def test_a_start_that_no_log_reaches_is_refused(shop: Shop):
    for start, code in (
        ("9" * 16, "not_released"),
        ("9" * 17, "malformed_request"),
        ("9" * 9_999, "malformed_request"),
    ):
        assert (await shop.get(f"/v1/log?start={start}")).code == code
    assert (await shop.get(f"/v1/log?start={'9' * 20_000}")).code == "headers_too_large"


async def test_a_piece_holds_so_many_records_and_says_where_to_go_on(shop: Shop):
    await shop.fill(2 * MAX_PAGE_RECORDS + 100)
    released = await shop.release()
    first, end = await page(shop, 0)
    assert (len(first), end) == (MAX_PAGE_RECORDS, {"next": MAX_PAGE_RECORDS, "released": released})
    assert (await page(shop, end["next"]))[0][0] == shop.lines()[MAX_PAGE_RECORDS]
    assert [record.to_bytes() for record in await shop.records()] == shop.lines()[:released]


async def test_a_piece_ends_once_it_is_large_enough(shop: Shop):
    for block in range(1, 8):
        await shop.step(block, observed="A" * 1_500_000)
    released = await shop.release()
    lines, end = await page(shop, 0)
    size = sum(len(line) + 1 for line in lines)
    assert PAGE_BYTES <= size <= PAGE_BYTES + 1_600_000
    assert end["next"] == len(lines) < released
    assert [record.to_bytes() for record in await shop.records()] == shop.lines()[:released]


async def test_a_log_that_grows_and_is_released_meanwhile_is_read_to_its_new_end(shop: Shop):
    await shop.fill(MAX_PAGE_RECORDS + 10)
    early = await shop.release()
    records = []
    async for record in shop.client.released_records(shop.axon, ME, PROVER):
        records.append(record)
        if len(records) == 5:
            await shop.step(shop.journal.standings.block + 1)
            late = await shop.release()
    assert early < late == len(records)
    assert [record.to_bytes() for record in records] == shop.lines()[:late]


async def test_many_read_while_the_log_is_written(shop: Shop):
    await shop.fill(500)
    released = await shop.release()
    read: list[int] = []

    async def reads() -> None:
        read.append(len(await shop.records()))

    async def writes() -> None:
        for block in range(1_000, 1_050):
            await shop.step(block)

    async with anyio.create_task_group() as group:
        group.start_soon(writes)
        for _ in range(6):
            group.start_soon(reads)
    assert read == [released] * 6
    assert shop.journal.head.seq > released + 100


async def test_a_restarted_verifier_hands_out_the_same_log(tmp_path: Path, chain: EmbeddedChain):
    async with a_shop(tmp_path, chain) as shop:
        await shop.step(1)
        await shop.release()
        before = await shop.records()
    async with a_shop(tmp_path, chain) as shop:
        assert await shop.records() == before
        await shop.step(shop.journal.standings.block + 1)
        await shop.release()
        after = await shop.records(len(before), after=before[-1].hash)
    assert after


async def test_a_damaged_record_is_not_handed_out(shop: Shop):
    await shop.step(1)
    await shop.release()
    with sqlite3.connect(shop.path) as connection:
        connection.execute("UPDATE records SET event = replace(event, '64 of 64', '63 of 64') WHERE seq = 5")
    connection.close()
    with pytest.raises(Refused) as caught:
        await shop.records()
    assert (caught.value.status, caught.value.code) == (500, "internal")
    assert "records" not in caught.value.message


async def test_too_many_readers_are_asked_to_come_again(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    await shop.release()
    monkeypatch.setattr("targon.verifier.service.MAX_READERS", 0)
    reply = await shop.get("/v1/log?start=0")
    assert (reply.status, reply.code) == (503, "overloaded")
    assert int(reply.headers["retry-after"]) >= 1
    async with anyio.create_task_group() as group:
        group.start_soon(frees, monkeypatch)
        assert await shop.records(), "the client comes again by itself"


async def frees(monkeypatch: pytest.MonkeyPatch) -> None:
    await anyio.sleep(0.2)
    monkeypatch.setattr("targon.verifier.service.MAX_READERS", 1)


async def until_hung_up(stream: ByteReceiveStream) -> bytes:
    received = b""
    with anyio.fail_after(10):
        try:
            async for piece in stream:
                received += piece
        except anyio.BrokenResourceError:
            return received
    return received


async def test_a_reader_that_reads_too_slowly_is_cut_off_and_frees_its_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("targon.verifier.service.MAX_READERS", 1)
    monkeypatch.setattr("targon.verifier.service.PIECE_TIMEOUT_S", 0.5)
    for block in range(1, 6):
        await shop.step(block, observed="A" * 3_900_000)
    released = await shop.release()
    stream = await anyio.connect_tcp("127.0.0.1", shop.axon.port)
    async with stream:
        await stream.send(get("/v1/log?start=0"))
        await anyio.sleep(0.2)
        assert (await shop.get("/v1/log?start=0", OTHER)).code == "overloaded"
        with anyio.fail_after(10):
            while (await shop.get(f"/v1/log?start={released}", OTHER)).status != 200:
                await anyio.sleep(0.2)
        assert b'"next"' not in (await until_hung_up(stream))[-100:]
    assert shop.metric("targon_requests_abandoned_total") == 1


async def test_the_client_waits_where_it_asked_too_often(tmp_path: Path, chain: EmbeddedChain):
    limits = Limits(per_hotkey=Allowance(per_second=0.3, burst=1, concurrent=4))
    async with a_shop(tmp_path, chain, limits=limits) as shop:
        await shop.fill(MAX_PAGE_RECORDS + 10)
        released = await shop.release()
        assert len(await shop.records()) == released
        assert shop.metric("targon_refusals_total", code="too_many_requests") >= 1


async def test_the_event_loop_goes_on_while_a_log_is_handed_out(shop: Shop):
    evidence = {
        str(number): number / 7 for number in range(20_000)
    }  # whole seconds of work for what writes lines
    for block in range(1, 12):
        await shop.step(block, evidence=evidence)
    await shop.release()
    longest = 0.0

    async def ticks() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await anyio.sleep(0.005)
            longest = max(
                longest, time.thread_time() - before
            )  # of its own work, whatever else the machine does

    async with anyio.create_task_group() as group:
        group.start_soon(ticks)
        assert (await page(shop, 0))[0]
        group.cancel_scope.cancel()
    assert longest < 0.25
