from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chain.subtensor_world import endpoint
from tests.chain.worlds import World, worlds

WORLDS = worlds()

collect_ignore_glob = [] if endpoint() else ["test_subtensor_*.py"]
"""These need a real node, which is named by an environment variable."""


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    built = await WORLDS[request.param](tmp_path)
    yield built
    await built.aclose()
