"""Places where logs are made: one for each adapter. A new adapter joins by a line in WORLDS."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from targon.ledger import Log, SqliteLog
from targon.ledger.redis import RedisAddress, RedisLog
from tests.ledger.redis_server import RedisServer


class World(Protocol):
    """A place where there is one log, or can be."""

    def open(self, *, read_only: bool = False) -> AbstractAsyncContextManager[Log]: ...

    def told(self) -> str:
        """This world in a line, for another process."""
        ...


@dataclass(frozen=True)
class SqliteWorld:
    path: Path

    @asynccontextmanager
    async def open(self, *, read_only: bool = False) -> AsyncGenerator[Log, None]:
        async with aclosing(await SqliteLog.open(self.path, read_only=read_only)) as log:
            yield log

    def told(self) -> str:
        return json.dumps({"path": str(self.path)})


@dataclass(frozen=True)
class RedisWorld:
    address: RedisAddress

    @asynccontextmanager
    async def open(self, *, read_only: bool = False) -> AsyncGenerator[Log, None]:
        async with RedisLog.open(self.address, read_only=read_only) as log:
            yield log

    def told(self) -> str:
        return json.dumps(asdict(self.address))


def world_of(told: str) -> World:
    """The world that another process told of."""
    value = json.loads(told)
    return SqliteWorld(Path(value["path"])) if "path" in value else RedisWorld(RedisAddress(**value))


WORLDS: dict[str, Callable[[Path, RedisServer], World]] = {
    "sqlite": lambda path, _: SqliteWorld(path),
    "redis": lambda _, server: RedisWorld(server.address),
}
