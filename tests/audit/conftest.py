"""What the tests of the audit share: a verifier's life, and what it publishes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

from benchmarks.written_log import Life
from tests.audit.world import Published, a_life

BLOCKS = 40


@pytest.fixture(scope="session")
def life() -> Life:
    return a_life(BLOCKS)


@pytest.fixture(scope="session")
def untouched(life: Life, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return anyio.run(Published.of, life, tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def published(untouched: Published, tmp_path: Path) -> Published:
    """A copy, to be tampered with."""
    shutil.copytree(untouched.folder, tmp_path / "segments")
    return Published(tmp_path / "segments")
