"""Challenges and inferences name one newest block: two sources would tell them apart."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from targon.verifier.asking import Asker, Moment
from targon.verifier.moments import Moments
from tests.verifier.conftest import World
from tests.verifier.office import office

pytestmark = pytest.mark.anyio


async def test_challenges_name_the_moment_that_the_desk_would_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Moment] = []
    named: list[Moment] = []
    now, request = Moments.now, Asker.request

    def tell(self: Moments) -> Moment:
        told.append(now(self))
        return told[-1]

    def name(
        self: Asker, messages: Any, sampling: Any, prover: Any, attempt: Any, moment: Moment, *salt: Any
    ) -> Any:
        named.append(moment)
        return request(self, messages, sampling, prover, attempt, moment, *salt)

    monkeypatch.setattr(Moments, "now", tell)
    monkeypatch.setattr(Asker, "request", name)
    async with world.prover("A"), world.prover("B"), office(world):
        while len(named) < 4:
            await anyio.sleep(0.05)
    assert {id(moment) for moment in named} <= {id(moment) for moment in told}
