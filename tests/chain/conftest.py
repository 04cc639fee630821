from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chain.worlds import World, worlds

WORLDS = worlds()


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    built = await WORLDS[request.param](tmp_path)
    yield built
    await built.aclose()
