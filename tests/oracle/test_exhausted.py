"""What an oracle does where it has nothing to give: it says so, to callers and to its operator, and goes on trying."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry

from targon.oracle.book import CommitmentBook
from targon.oracle.errors import StoreUnavailable
from targon.oracle.planning import MARGIN_BLOCKS
from targon.protocol.disclosures import OracleStatus
from tests.oracle.service_world import (
    ALICE,
    WAIT_S,
    Place,
    ToldChain,
    ToldSupply,
    an_oracle,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with an_oracle(tmp_path) as place:
        await place.begun()
        await place.until_status(200)
        yield place


async def told(place: Place) -> OracleStatus:
    return OracleStatus.from_bytes((await place.get("/v1/status")).body)


# -- when there is little to give -----------------------------------------------------------------------


async def test_a_source_that_gives_little_at_a_time_makes_few_periods_and_none_is_forgotten(
    tmp_path: Path,
) -> None:
    supply = ToldSupply(at_once=12)  # two blocks' worth
    async with an_oracle(tmp_path, supply=supply, period_blocks=36) as place:
        await place.begun()
        await place.until_status(200)
        for _ in range(30):
            await place.settle()
            assert (await told(place)).periods[-1].last >= place.chain.head + 3
            assert (await place.given(ALICE, 0, place.chain.head)).body.block == place.chain.head
            assert len((await told(place)).periods) <= 3  # as many as a verifier remembers
            place.chain.head += 1


# -- when there is nothing to give ---------------------------------------------------------------------


async def test_before_its_first_period_it_says_when_that_begins(tmp_path: Path) -> None:
    async with an_oracle(tmp_path) as place:
        body = (await place.committed(0)).body
        reply = await place.ask(ALICE)
        assert (reply.status, reply.code) == (503, "not_committed")
        assert reply.error["expected"] == f"block {body.first}"


async def test_too_little_text_for_a_period_shortens_it(tmp_path: Path) -> None:
    async with an_oracle(tmp_path, supply=ToldSupply(left=15)) as place:
        body = (await place.begun()).body
        assert body.last - body.first + 1 == 2  # of 2 verifiers with 3 places: 15 passages fill two blocks
        assert (await place.until_status(200)).status == 200


async def test_too_little_text_for_a_block_is_said_and_tried_again(tmp_path: Path) -> None:
    supply = ToldSupply(left=5)
    async with an_oracle(tmp_path, supply=supply) as place:
        reply = await place.until_status(503)
        with anyio.fail_after(WAIT_S):
            while reply.code != "exhausted":
                await anyio.sleep(0.01)
                reply = await place.ask(ALICE)
        assert int(reply.headers["retry-after"]) >= 12
        assert "5 passages, expected 6" in str(place.oracle.ailing())
        supply.left = 1_000
        with anyio.fail_after(WAIT_S):
            while not await place.commitments():
                place.chain.head += 1
                await anyio.sleep(0.02)
        assert place.oracle.ailing() is None
    assert "Passage 0 is" in (tmp_path / "periods" / "0.jsonl").read_text()


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), RuntimeError("a strange file")])
async def test_a_source_that_fails_ends_nothing_that_is_served(place: Place, error: Exception) -> None:
    last = (await place.committed(1)).body.last
    place.supply.error = error
    for block in range(place.chain.head, last + 1):
        place.chain.head = block
        assert (await place.given(ALICE, 0, block)).body.block == block
    await place.settle()
    assert str(error) in str(place.oracle.ailing())
    place.supply.error = None
    with anyio.fail_after(WAIT_S):
        while (await place.commitments())[-1].body.last == last:
            place.chain.head += 1
            await anyio.sleep(0.02)


async def test_what_is_not_the_source_s_fault_is_not_called_exhausted(tmp_path: Path) -> None:
    supply = ToldSupply(error=StoreUnavailable("the disk is full"))
    async with an_oracle(tmp_path, supply=supply) as place:
        with anyio.fail_after(WAIT_S):
            while place.oracle.ailing() is None:
                await anyio.sleep(0.01)
        reply = await place.ask(ALICE)
        assert (reply.status, reply.code) == (503, "not_committed")
        assert "its operator was told why" in reply.error["message"]


async def test_an_old_commitment_that_is_damaged_ends_nothing_that_is_served(tmp_path: Path) -> None:
    async with an_oracle(tmp_path, kept_blocks=60, period_blocks=6) as place:
        await place.begun()
        file = tmp_path / "commitments.jsonl"
        for _ in range(80):
            await place.reach(place.chain.head + 1)
            lines = file.read_bytes().split(b"\n")
            if len(lines) == 10:
                with file.open("r+b") as damaged:
                    damaged.write(b"#")  # of the oldest, which is not in memory
        assert len(lines) > 12
        assert (await place.until_status(200)).status == 200
        assert (await place.get("/v1/reveals/0")).code == "internal"


async def test_a_commitment_that_the_disk_keeps_too_long_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, write = ToldChain(), CommitmentBook._write
    ended: list[int] = []

    def slowly(book: CommitmentBook, data: bytes, at: int) -> None:
        write(book, data, at)
        if not ended:
            chain.passes(3)
        ended.append(chain.head)

    monkeypatch.setattr(CommitmentBook, "_write", slowly)
    async with an_oracle(tmp_path, chain) as place:
        body = (await place.committed(0)).body
        assert len(ended) > 1
        assert body.first >= ended[0] + MARGIN_BLOCKS
        assert len(await place.commitments()) == (tmp_path / "commitments.jsonl").read_bytes().count(b"\n")


async def test_started_again_it_says_until_when_it_has_committed(tmp_path: Path) -> None:
    chain, supply = ToldChain(), ToldSupply()
    async with an_oracle(tmp_path, chain, supply) as place:
        await place.committed(0)
    registry = CollectorRegistry()
    supply.error = StoreUnavailable("the disk is full")
    async with an_oracle(tmp_path, chain, supply, registry=registry) as place:
        last = (await place.commitments())[-1].body.last
        assert registry.get_sample_value("targon_oracle_committed_until") == last


async def test_without_the_chain_it_serves_the_block_that_it_knows(place: Place) -> None:
    place.chain.down = True
    assert (await place.ask(ALICE)).status == 200
