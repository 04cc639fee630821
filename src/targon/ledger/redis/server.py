"""What is asked of a Redis before a log is opened in it: is it one, is it a log's, and does it keep what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from targon.ledger.errors import LogUnavailable
from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.schema import ABOUT, OLDEST_REDIS, PREFIX, SCHEMA_VERSION

logger = structlog.get_logger(__name__)

_NAMED: Final = 3
"""Keys that an error names."""


async def check_server(client: Redis, address: RedisAddress) -> None:
    """Raise LogUnavailable if the server is too old."""
    info = await asked(client, "INFO", "server")
    found = str(info.get("redis_version", ""))
    numbers = found.split(".")[:2]
    if len(numbers) == 2 and tuple(map(int, numbers)) < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        raise LogUnavailable(f"cannot open the log {address}: got Redis {found}, expected {oldest} or newer")


async def holds_a_log(client: Redis, address: RedisAddress) -> bool:
    """Whether there is a log in the database already.

    Raises:
        LogUnavailable: if there is something else, or a log of another version.
    """
    version: bytes | None = await client.execute_command("HGET", ABOUT, "schema")
    if version is not None:
        if version != str(SCHEMA_VERSION).encode():
            got = version.decode("utf-8", "replace")
            cure = "upgrade this software" if got > str(SCHEMA_VERSION) else "was it changed by hand?"
            raise LogUnavailable(
                f"the log {address} was written by another version: got version {got}, "
                f"expected {SCHEMA_VERSION}: {cure}"
            )
        return True
    count: int = await client.execute_command("DBSIZE")
    if count == 0:
        return False
    _, keys = await client.execute_command("SCAN", 0, "COUNT", 100)
    names = ", ".join(repr(key.decode("utf-8", "replace")[:40]) for key in sorted(keys)[:_NAMED])
    problem = f"{address} holds {count} key{'s' if count > 1 else ''} ({names}) but no log"
    if any(key.startswith(PREFIX.encode()) for key in keys):
        raise LogUnavailable(
            f"{problem}: {ABOUT} is missing; restore it from Redis' append-only file or a copy"
        )
    raise LogUnavailable(
        f"{problem}, expected a log or nothing: give the log a database of its own with --database.index"
    )


def weaknesses(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where a server does not keep what it acknowledged: each problem, with the setting that cures it."""
    return [
        (problem, f"{name} {good}")
        for name, bad, good, problem in (
            ("appendonly", ("no",), "yes", "there is no append-only file: a restart loses the log"),
            (
                "appendfsync",
                ("no",),
                "everysec",
                "the append-only file is never flushed: a power cut loses minutes",
            ),
            (
                "maxmemory-policy",
                ("allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-lrm"),
                "noeviction",
                "a full Redis throws the log away",
            ),
        )
        if settings.get(name) in bad
    ]


def cure(settings: Iterable[str]) -> str:
    """The commands and the lines of the configuration that set something."""
    lines = list(settings)
    now = "; ".join(f"redis-cli CONFIG SET {line}" for line in lines)
    return f"now: {now}; for good, in redis.conf: {'; '.join(lines)}"


async def say_what_could_be_lost(client: Redis, address: RedisAddress) -> None:
    """Log one warning if the server does not keep what it acknowledged, with what to do about it."""
    told = await settings_of(client)
    weak = weaknesses(told)
    if weak:
        logger.warning(
            "redis_may_lose_the_log",
            log=str(address),
            problem="; ".join(problem for problem, _ in weak),
            fix=cure(line for _, line in weak),
        )
        return
    logger.info("redis_log_opened", log=str(address), may_lose=_may_lose(told.get("appendfsync")))


def _may_lose(appendfsync: str | None) -> str:
    if appendfsync == "always":
        return "nothing that was acknowledged"
    if appendfsync == "everysec":
        return (
            "the newest second or two, and only if this verifier dies together with Redis "
            "(it puts back what Redis alone loses); `appendfsync always` loses nothing"
        )
    return "unknown: the server does not tell its appendfsync"


async def settings_of(client: Redis) -> dict[str, str]:
    """What the server says of its append-only file and of its memory; as much of it as this user may know."""
    found: dict[str, str] = {}
    for pattern in ("append*", "maxmemory*"):
        answer = await asked(client, "CONFIG GET", pattern)
        found |= {_text(name): _text(value) for name, value in answer.items()}
    if "appendonly" not in found:
        info = await asked(client, "INFO", "persistence")
        if "aof_enabled" in info:
            found["appendonly"] = "yes" if info["aof_enabled"] else "no"
    return found


async def asked(client: Redis, *command: str) -> dict[Any, Any]:
    """The answer to a command that a server may refuse to this user, or not have; nothing then."""
    try:
        answer: dict[Any, Any] = await client.execute_command(*command)
    except (NoPermissionError, ResponseError):
        return {}
    return answer


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
