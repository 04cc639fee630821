"""How long a local network waits, at its end, for what only takes its time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from targon.localnet import Settings, runner
from targon.localnet.cast import cast
from targon.localnet.runner import PATIENCE
from targon.localnet.summary import Line
from targon.protocol.primitives import Uid

pytestmark = pytest.mark.anyio

HONEST, CHEAT = cast(1, 0, ("offline",))
IN_ORDER = [Line(Uid(1), HONEST, "Bronze", 3, 0.1, 65535, 1.0), Line(Uid(2), CHEAT, "Bronze", 0, 0.0, 0, 0.0)]
ON_PROBATION = [replace(IN_ORDER[0], weight=0, incentive=0.0), IN_ORDER[1]]


class Slow:
    """A network in which an interval closes with each look, and some of them pass before all is in order."""

    def __init__(self, intervals: int, judged_after: int = 0, light: bool = False) -> None:
        self.settings = Settings(path=Path("nowhere"), intervals=1, light=light)
        self.looks = 0
        self.stopped = False
        self._in_order_after = intervals
        self._judged_after = judged_after

    @property
    def patient(self) -> bool:
        return self.looks < PATIENCE

    def check(self) -> None:
        """Every process runs."""

    async def refresh(self) -> None:
        self.looks += 1

    async def lines(self) -> list[Line]:
        return IN_ORDER if self.looks >= self._in_order_after else ON_PROBATION

    async def borrowed(self, _: object) -> int:
        return max(0, self.looks - self._judged_after)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SETTLE_S", 0.0)
    monkeypatch.setattr(runner, "POLL_S", 0.0)


async def settled(slow: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(runner, "_borrowed", slow.borrowed)
    await runner._settle(slow, slow)
    return int(slow.looks)


async def test_where_an_interval_outlasts_a_minute_intervals_are_waited_for(monkeypatch) -> None:
    assert await settled(Slow(5), monkeypatch) == 5


async def test_what_never_comes_is_not_waited_for_without_end(monkeypatch) -> None:
    assert await settled(Slow(1_000), monkeypatch) == PATIENCE


async def test_a_light_verifier_has_until_then_to_judge_something(monkeypatch) -> None:
    assert await settled(Slow(2, judged_after=4, light=True), monkeypatch) == 5
    assert await settled(Slow(2, judged_after=4), monkeypatch) == 2


async def test_who_asks_it_to_stop_waits_no_longer(monkeypatch) -> None:
    slow = Slow(1_000)
    slow.stopped = True
    assert await settled(slow, monkeypatch) == 0
