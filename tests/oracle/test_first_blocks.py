"""A period's first block, by whose hash it is dealt: the chain may replace it, or not tell its hash at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from targon.protocol.primitives import Digest
from targon.protocol.private_inputs import PrivateInput, check_input, deal
from tests.oracle.service_world import ALICE, BOB, an_oracle, key

pytestmark = pytest.mark.anyio


async def test_a_block_that_the_chain_replaces_is_dealt_anew(tmp_path: Path) -> None:
    async with an_oracle(tmp_path) as place:
        body = (await place.begun()).body
        await place.until_status(200)
        place.chain.hashes[body.first] = Digest("77" * 32)
        dealt = deal(body, "77" * 32)
        for block in range(body.first + 1, body.last + 1):
            place.chain.head = block
            if (reply := await place.ask(ALICE, 0, block)).status == 200:
                check_input(PrivateInput.from_bytes(reply.body), body, verifier=key(ALICE), dealt=dealt)


async def test_what_was_given_before_the_chain_replaced_a_block_is_given_to_nobody_else(
    tmp_path: Path,
) -> None:
    async with an_oracle(tmp_path) as place:
        body = (await place.begun()).body
        await place.until_status(200)
        texts = [(await place.given(who, number)).body.text for who in (ALICE, BOB) for number in range(3)]
        place.chain.hashes[body.first] = Digest("77" * 32)
        refused = 0
        for block in range(body.first + 1, body.last + 1):
            place.chain.head = block
            for who in (ALICE, BOB):
                for number in range(3):
                    reply = await place.ask(who, number, block)
                    if reply.status == 200:
                        texts.append(PrivateInput.from_bytes(reply.body).body.text)
                    else:
                        assert (reply.status, reply.code) == (404, "no_such_place")
                        refused += 1
        assert refused
        assert len(set(texts)) == len(texts)


async def test_a_hash_that_the_chain_does_not_tell_at_once_costs_no_block(tmp_path: Path) -> None:
    async with an_oracle(tmp_path) as place:
        body = (await place.committed(0)).body
        place.chain.hashless = 1
        place.chain.head = body.first
        assert PrivateInput.from_bytes((await place.until_status(200)).body).body.block == body.first
        assert place.oracle.ailing() is None
