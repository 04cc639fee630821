"""What the tests of the ledger share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.redis_server import RedisServer, redis_server
from tests.ledger.worlds import WORLDS, World


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log may be made."""
    return tmp_path / "verifier" / "log.sqlite3"


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that no test stops or configures."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def empty_redis(shared_redis: RedisServer) -> RedisServer:
    """A Redis that holds nothing yet, and that no test stops or configures."""
    shared_redis.command("FLUSHALL")
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, path: Path, empty_redis: RedisServer) -> World:
    """A place where a log may be made, of each adapter in turn."""
    return WORLDS[request.param](path, empty_redis)
