"""A gateway that a test may let lie, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from targon.client import AsyncClient, Client
from tests.client.gateway import Gateway, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Gateway]:
    with serving(Gateway()) as gateway:
        yield gateway


@pytest.fixture
def gateway(server: Gateway) -> Iterator[Gateway]:
    url = server.url
    server.__init__()  # type: ignore[misc]
    server.url = url
    yield server
    server.lie = None


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(api_key="sk-test", base_url=gateway.url, max_retries=0) as one:
        yield one


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api_key="sk-test", base_url=gateway.url, max_retries=0) as one:
        yield one
