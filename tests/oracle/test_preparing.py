"""The next period: committed to beforehand or not at all, and of texts that no other has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from targon.oracle.passage import Passage
from targon.oracle.periods import PeriodFolder
from targon.oracle.planning import MARGIN_BLOCKS
from targon.protocol.primitives import Digest
from tests.oracle.service_world import WAIT_S, ToldChain, an_oracle

pytestmark = pytest.mark.anyio


async def test_what_took_too_long_to_write_is_not_signed_and_a_later_period_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, write = ToldChain(), PeriodFolder.write
    ended: list[int] = []

    def slowly(folder: PeriodFolder, number: int, secret: bytes, passages: Sequence[Passage]) -> Digest:
        if not ended:
            chain.passes(3)
        root = write(folder, number, secret, passages)
        ended.append(chain.head)
        return root

    monkeypatch.setattr(PeriodFolder, "write", slowly)
    async with an_oracle(tmp_path, chain) as place:
        body = (await place.committed(0)).body
        assert len(ended) > 1
        assert body.first >= ended[-1] + MARGIN_BLOCKS
        kept = (tmp_path / "periods" / "0.jsonl").read_bytes()
    assert kept.count(b"\n") == body.leaves


async def test_no_text_is_in_two_periods(tmp_path: Path) -> None:
    async with an_oracle(tmp_path) as place:
        place.chain.head = (await place.begun()).body.last
        await place.committed(1)
    texts = [
        json.loads(line)["text"]
        for number in (0, 1)
        for line in (tmp_path / "periods" / f"{number}.jsonl").read_text().splitlines()
    ]
    assert len(set(texts)) == len(texts) > 36


async def test_an_oracle_that_committed_far_beyond_the_chain_says_so_and_what_to_do(tmp_path: Path) -> None:
    misled = ToldChain()
    misled.head = 1_000_000
    async with an_oracle(tmp_path, misled) as place:
        await place.committed(0)
    async with an_oracle(tmp_path) as place:
        with anyio.fail_after(WAIT_S):
            while (trouble := place.oracle.ailing()) is None:
                await anyio.sleep(0.01)
        assert "the chain is at block 100: a node told it a block that wasn't there" in trouble
        assert "a new folder and a new hotkey" in trouble
        place.chain.head = 1_000_000
        with anyio.fail_after(WAIT_S):
            while place.oracle.ailing() is not None:
                await anyio.sleep(0.01)
