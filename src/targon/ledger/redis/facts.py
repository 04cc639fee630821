"""What a Redis says of itself and of the log in it, for those who look before they open it. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from targon.ledger.redis import server
from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.schema import KEYS, LEASE
from targon.ledger.redis.session import Session
from targon.ledger.redis.writer import named_holder


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """A server that a log may be kept in. None: it does not say, or not to this user."""

    version: str | None
    appendonly: str | None
    appendfsync: str | None
    policy: str | None
    """What it does when it is full."""
    weak: tuple[str, ...]
    """Ways in which it may lose what it acknowledged."""
    cure: str
    """What to set against that."""
    used: int | None
    """Bytes that all its databases take."""
    most: int | None
    """Bytes that it may take: its own limit, or else the memory of its machine."""
    limited: bool
    """Whether the limit is its own."""
    size: int | None
    """Bytes that the log takes."""
    begun: bool
    """Whether there is a log."""
    writer: str | None
    """Who writes it now; None: nobody."""


async def look_at(address: RedisAddress) -> RedisFacts:
    """Ask a server for all of it.

    Raises:
        LogUnavailable: if it cannot be reached or lets nobody in, is too old, or holds something else.
    """
    session = Session(address)
    try:
        return await session.call(lambda client: _look(client, address), "look at")
    finally:
        await session.aclose()


async def _look(client: Redis, address: RedisAddress) -> RedisFacts:
    await server.check_server(client, address)
    begun = await server.holds_a_log(client, address)
    about, memory = await server.asked(client, "INFO", "server"), await server.asked(client, "INFO", "memory")
    settings = await server.settings_of(client)
    weak = server.weaknesses(settings)
    limit = int(settings.get("maxmemory", memory.get("maxmemory", 0)))
    lease: bytes | None = await client.execute_command("GET", LEASE)
    return RedisFacts(
        version=_word(about.get("redis_version")),
        appendonly=settings.get("appendonly"),
        appendfsync=settings.get("appendfsync"),
        policy=settings.get("maxmemory-policy"),
        weak=tuple(problem for problem, _ in weak),
        cure=server.cure(line for _, line in weak) if weak else "",
        used=_count(memory.get("used_memory")),
        most=limit or _count(memory.get("total_system_memory")),
        limited=bool(limit),
        size=await _size(client) if begun else 0,
        begun=begun,
        writer=None if lease is None else named_holder(lease),
    )


async def _size(client: Redis) -> int | None:
    try:
        return sum([await client.execute_command("MEMORY USAGE", key) or 0 for key in KEYS])
    except (NoPermissionError, ResponseError):
        return None


def _word(value: object) -> str | None:
    return None if value is None else str(value)


def _count(value: object) -> int | None:
    return None if value is None else int(str(value))
