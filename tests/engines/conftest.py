"""Real models for the tests of this room, each loaded once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from targon.engines.model_thread import share_the_cores

share_the_cores()  # before torch is imported: several engines run here at once

from targon.engines.transformers_engine import TransformersEngine, open_transformers_engine  # noqa: E402
from tests.tiny_model import make_tiny_model  # noqa: E402

MAX_BATCH = 8


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the session, so that an engine can live through it."""
    return "asyncio"


@pytest.fixture(scope="session")
async def fp32_engine(anyio_backend: str) -> AsyncIterator[TransformersEngine]:
    async with open_transformers_engine(dtype="float32", max_batch=MAX_BATCH) as engine:
        yield engine


@pytest.fixture(scope="session")
async def bf16_engine(anyio_backend: str) -> AsyncIterator[TransformersEngine]:
    async with open_transformers_engine(dtype="bfloat16", max_batch=MAX_BATCH) as engine:
        yield engine


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights that is quick to load, and the default model's tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model"))
