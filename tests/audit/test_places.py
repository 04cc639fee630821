"""Whether an oracle has places for everybody: asked of one that runs, over real HTTP, beside a chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from targon.audit import OracleReport, check_places
from targon.protocol.private_inputs import PLACE_AFTER_BLOCKS
from tests.oracle.service_world import ALICE, BOB, LATE, Place, ToldChain, ToldSupply, an_oracle, key

pytestmark = pytest.mark.anyio


async def looked(place: Place, chain: ToldChain) -> tuple[list[str], list[str]]:
    """What is said for people, and the notes."""
    report, notes = OracleReport(), list[str]()
    await check_places(f"http://127.0.0.1:{place.port}", chain, report, notes)  # type: ignore[arg-type]
    return report.lines(), notes


async def test_an_oracle_with_places_for_everybody_is_said_to_have_them(tmp_path: Path):
    async with an_oracle(tmp_path) as place:
        body = (await place.committed(0)).body
        said, notes = await looked(place, place.chain)
    assert notes == []
    assert said == [
        f"the newest commitment of {body.oracle}, for blocks {body.first} to {body.last}, has places for 2 of the 2 "
        "hotkeys with a permit in block 100"
    ]


async def test_whoever_has_a_permit_and_no_place_is_named_with_since_when_it_would_have_one(tmp_path: Path):
    async with an_oracle(tmp_path) as place:
        body = (await place.committed(0)).body
        chain = ToldChain()
        chain.permits = {key(ALICE), key(BOB), key(LATE)}
        (said,), (note,) = await looked(place, chain)
    assert "places for 2 of the 3 hotkeys" in said
    assert f"has no place for {key(LATE)}: left out" in note
    assert f"since block {body.first - PLACE_AFTER_BLOCKS} or later" in note


async def test_an_oracle_that_has_nothing_to_give_is_said_to_have_nothing(tmp_path: Path):
    async with an_oracle(tmp_path, supply=ToldSupply(left=0)) as place:
        said, (note,) = await looked(place, place.chain)
    assert said == []
    assert "it has committed to nothing from block 100 on" in note


async def test_a_period_that_is_over_has_places_for_nobody(tmp_path: Path):
    async with an_oracle(tmp_path) as place:
        body = (await place.committed(0)).body
        later = ToldChain()
        later.head = body.last + 1
        said, (note,) = await looked(place, later)
    assert said == []
    assert f"is over in block {body.last + 1}" in note


async def test_an_oracle_of_another_network_says_nothing_of_this_one(tmp_path: Path):
    other = ToldChain()
    async with an_oracle(tmp_path) as place:
        await place.committed(0)
        other._info = other._info.__class__(5, other._info.genesis, 12.0, 360, 0, 0)
        said, (note,) = await looked(place, other)
    assert said == []
    assert "an oracle of another network" in note


@pytest.mark.parametrize(
    "answers",
    [
        lambda _: b"",
        lambda _: b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n",
        lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        lambda path: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]" if "comm" in path else b"",
    ],
    ids=["nothing", "an error", "no status", "no commitments"],
)
async def test_what_answers_otherwise_is_said_and_no_fault(answers: Callable[[str], bytes]):
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            path = (await stream.receive()).split()[1].decode()
            await stream.send(answers(path) or b"?")

    report, notes = OracleReport(), list[str]()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        with anyio.fail_after(20):
            await check_places(f"http://127.0.0.1:{port}", ToldChain(), report, notes)  # type: ignore[arg-type]
        tasks.cancel_scope.cancel()
    assert report.lines() == []
    assert len(notes) == 1
    assert "could not be checked" in notes[0]
