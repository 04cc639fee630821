"""Real engines, each started once for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from live import servers
from live.gguf_file import write_gguf
from targon.engines import Engine, connect_engine
from targon.engines.remote import RemoteEngine, open_remote_engine


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the session, so that connections can live through it."""
    return "asyncio"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="session")
def vllm_url(folder: Path) -> Iterator[str]:
    """A vLLM in float32, with the protocol sampler."""
    with servers.vllm(folder, "float32", 0) as url:
        yield url


@pytest.fixture(scope="session")
def vllm_bf16_url(folder: Path) -> Iterator[str]:
    """A vLLM in bfloat16, with the protocol sampler."""
    with servers.vllm(folder, "bfloat16", 1) as url:
        yield url


@pytest.fixture(scope="session")
def llama_url(folder: Path) -> Iterator[str]:
    """llama.cpp's server with float16 weights."""
    gguf = folder / "model.gguf"
    write_gguf(gguf, np.float16)
    with servers.llama_cpp(folder, gguf) as url:
        yield url


@pytest.fixture(scope="session")
def tgi_url(folder: Path) -> Iterator[str]:
    with servers.replaying_tgi(folder) as url:
        yield url


@pytest.fixture(scope="session")
def reference_socket(folder: Path) -> Iterator[Path]:
    """An engine of ours in float32."""
    with servers.transformers(folder, "reference", "--dtype", "float32") as socket:
        yield socket


@pytest.fixture(scope="session")
async def reference(anyio_backend: str, reference_socket: Path) -> AsyncIterator[Engine]:
    async with connect_engine(reference_socket) as engine:
        yield engine


@pytest.fixture(scope="session")
async def vllm(anyio_backend: str, vllm_url: str) -> AsyncIterator[RemoteEngine]:
    async with open_remote_engine(vllm_url) as engine:
        yield engine


@pytest.fixture(scope="session")
async def vllm_bf16(anyio_backend: str, vllm_bf16_url: str) -> AsyncIterator[RemoteEngine]:
    async with open_remote_engine(vllm_bf16_url) as engine:
        yield engine


@pytest.fixture(scope="session")
async def llama(anyio_backend: str, llama_url: str) -> AsyncIterator[RemoteEngine]:
    async with open_remote_engine(llama_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def bf16_socket(folder: Path) -> Iterator[Path]:
    """An engine of ours in bfloat16."""
    with servers.transformers(folder, "bf16", "--dtype", "bfloat16") as socket:
        yield socket


@pytest.fixture(scope="session")
def int4_socket(folder: Path) -> Iterator[Path]:
    """A cheat: the model's weights in four bits, under the model's name."""
    with servers.transformers(folder, "int4", "--dtype", "float32", "--variant", "int4") as socket:
        yield socket
