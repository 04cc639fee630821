"""What a verifier says that it relies on: once, in few words, and of whose engine it is that judges."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from targon.ledger import ReliesOn
from targon.protocol.primitives import Block, Hotkey
from targon.verifier.reliance import MAX_WHY, Reliance
from tests.tiny_engine import TinyEngine
from tests.verifier.oracle_seat import ORACLES, Seat, an_oracle, seated
from tests.verifier.scripted_oracle import FIRST
from tests.verifier.test_remote_inputs import another_place

pytestmark = pytest.mark.anyio


class LentEngine(TinyEngine):
    """Says that it is an oracle's."""

    lent_by: tuple[Hotkey, ...] = (ORACLES,)
    agreeing = 1


async def said(seat: Seat) -> list[tuple[tuple[Hotkey, ...], tuple[Hotkey, ...], int]]:
    events = [event for event in await seat.events() if isinstance(event, ReliesOn)]
    return [(event.inputs, event.reference, event.agreeing) for event in events]


async def test_what_is_relied_on_is_said_once_until_it_changes(tmp_path: Path) -> None:
    async with seated(tmp_path, an_oracle()) as seat:
        reliance = Reliance(seat.journal)
        for block in (1, 2):
            assert await reliance.inputs_from((ORACLES,), Block(block), "it serves") is (block == 1)
            assert await reliance.reference_from((ORACLES,), 1, Block(block), "it lends") is (block == 1)
        assert await reliance.inputs_from((), Block(3), "it is away")
        told = (await said(seat))[-3:]
    assert told == [((ORACLES,), (), 0), ((ORACLES,), (ORACLES,), 1), ((), (ORACLES,), 1)]


async def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    async with seated(tmp_path, an_oracle()) as seat:
        await Reliance(seat.journal).reference_from((ORACLES,), 1, Block(1), "why " * 1_000)
        last = [event for event in await seat.events() if isinstance(event, ReliesOn)][-1]
    assert last.why == ("why " * 1_000)[:MAX_WHY]


async def test_whose_engine_judges_is_said_as_soon_as_the_chain_tells_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targon.verifier.reliance.RETRY_S", 0.01)
    async with seated(tmp_path, an_oracle(ahead=-9)) as seat:
        reliance = Reliance(seat.journal)
        await reliance.tell_engine(TinyEngine(), seat.chain)  # type: ignore[arg-type]
        assert await said(seat) == []  # its own, as always
        seat.chain.silent = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reliance.tell_engine, LentEngine(), seat.chain)
            await anyio.sleep(0.05)
            assert await said(seat) == []
            seat.chain.silent = False
        await reliance.tell_engine(TinyEngine(), seat.chain)  # type: ignore[arg-type]
        assert await said(seat) == [((), (ORACLES,), 1), ((), (), 0)]


async def test_who_is_pardoned_is_pardoned_for_what_was_and_not_for_what_comes(tmp_path: Path) -> None:
    oracle = an_oracle(twist=another_place)
    async with seated(tmp_path, oracle) as seat:
        await seat.reach(FIRST)
        assert await seat.text() == "own 1"
        assert len(await seat.caught()) == 1
    async with seated(tmp_path, oracle, pardoned=True) as seat:
        await seat.reach(FIRST + 4)
        asked = len(oracle.asked)
        assert await seat.text() == "own 1"
        assert len(oracle.asked) == asked + 1
        assert len(await seat.caught()) == 2
        assert await seat.text(2) == "own 2"
        assert len(oracle.asked) == asked + 1
