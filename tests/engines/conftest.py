"""Real models for the tests of this room, each loaded once."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from targon.engines.model_thread import share_the_cores

share_the_cores()  # before torch is imported: several engines run here at once

import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from targon.engines.default_model import ensure_default_model  # noqa: E402
from targon.engines.transformers_engine import TransformersEngine, open_transformers_engine  # noqa: E402

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
    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8_192,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ensure_default_model() / name, folder / name)
    return folder
