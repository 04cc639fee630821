"""A verifier whose log is in Redis: through the server's death, its own, and a start on what was left."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from targon.engines.server import serve_engine
from targon.ledger import Event, LedgerError, StepClosed, Verdict
from targon.ledger.redis import RedisLog
from tests.ledger.redis_server import RedisServer
from tests.neuron_processes import Network, free_port, open_attempts
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio

WAIT_S = 180.0


@pytest.fixture
async def network(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[Network]:
    socket = tmp_path / "engine.sock"
    async with serve_engine(TinyEngine(), socket):
        yield Network(tmp_path, ("--engine.socket", str(socket)))


@pytest.fixture
async def redis(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    await anyio.to_thread.run_sync(server.start)
    yield server
    await anyio.to_thread.run_sync(server.stop)


async def events_of(redis: RedisServer) -> list[Event]:
    async with RedisLog.open(redis.address, read_only=True) as log:
        return [record.event async for record in log.read()]


async def steps_beyond(redis: RedisServer, count: int, network: Network) -> list[Event]:
    """The events, once more steps than these have closed."""
    with anyio.move_on_after(WAIT_S):
        while True:
            try:
                events = await events_of(redis)
            except LedgerError:  # it has not begun yet
                events = []
            if sum(isinstance(event, StepClosed) for event in events) > count:
                return events
            await anyio.sleep(0.2)
    raise AssertionError(f"no step beyond {count}; {(network.folder / 'verifier.out').read_text()[-3000:]}")


def steps(events: list[Event]) -> int:
    return sum(isinstance(event, StepClosed) for event in events)


async def test_a_verifier_on_redis_loses_nothing_when_either_is_killed(network, redis, monkeypatch):
    network.enrol("prover")
    network.enrol("verifier", stake=10_000)
    monkeypatch.setenv("TARGON_VERIFIER__DATABASE__PASSWORD", redis.address.password)
    database = ("--database.port", str(redis.address.port), "--database.index", str(redis.address.index))
    with network.prover("prover", free_port()):
        with network.verifier(*database) as verifier:
            first = await steps_beyond(redis, 1, network)
            await anyio.to_thread.run_sync(redis.kill)
            await anyio.sleep(1.0)
            await anyio.to_thread.run_sync(redis.start)
            second = await steps_beyond(redis, steps(first) + 1, network)
            assert verifier.poll() is None
            verifier.kill()
        with network.verifier(*database) as verifier:
            third = await steps_beyond(redis, steps(second) + 1, network)
            verifier.terminate()
            assert await anyio.to_thread.run_sync(verifier.wait) == 0
    last = await events_of(redis)
    assert second[: len(first)] == first
    assert third[: len(second)] == second
    assert last[: len(third)] == third
    assert not open_attempts(last)
    judged = [event.attempt for event in last if isinstance(event, Verdict)]
    assert len(judged) == len(set(judged))
    assert not list((network.folder / "verifier").glob("log.sqlite*"))
    assert redis.address.password not in (network.folder / "verifier.out").read_text()


async def test_a_wrong_password_is_refused_with_the_flag_that_mends_it(network, redis, monkeypatch):
    network.enrol("verifier", stake=10_000)
    monkeypatch.setenv("TARGON_VERIFIER__DATABASE__PASSWORD", "not-it")
    with network.verifier("--database.port", str(redis.address.port)) as verifier:
        assert await anyio.to_thread.run_sync(verifier.wait) == 1
    said = (network.folder / "verifier.out").read_text()
    assert "--database.password" in said
    assert "not-it" not in said
