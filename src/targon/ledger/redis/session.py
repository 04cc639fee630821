"""Calls to Redis that outlive a lost connection, a restart, a server that is still loading."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from targon.ledger.errors import LogUnavailable
from targon.ledger.redis.address import RedisAddress
from targon.ledger.redis.failures import Cure, explain

logger = structlog.get_logger(__name__)

RETRY_S: Final = 60.0
"""How long a call goes on trying. Redis loads some gigabytes in that time; a verifier loses five blocks."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
GOODBYE_S: Final = 2.0

T = TypeVar("T")


class Session:
    """Talks to one Redis, and goes on after it was away."""

    def __init__(self, address: RedisAddress) -> None:
        self.address = address
        self._client: Redis | None = address.client()
        self._reached = False

    @property
    def client(self) -> Redis:
        """The client, for a call that is to be tried once.

        Raises:
            LogUnavailable: if the session was closed.
        """
        if self._client is None:
            raise LogUnavailable("the log was closed, expected it to be open")
        return self._client

    async def call(self, operation: Callable[[Redis], Awaitable[T]], doing: str) -> T:
        """The result of an operation, which must be one that can be tried again after it failed half-way.

        A server that was never reached is waited for only while it loads: a wrong address should show at once.

        Args:
            doing: what it does, for the error: "read the log".

        Raises:
            LogUnavailable: if Redis refuses, or was away for too long.
        """
        began = anyio.current_time()
        pause, away = FIRST_PAUSE_S, False
        while True:
            try:
                result = await operation(self.client)
            except (RedisError, OSError) as error:
                failure = explain(error, self.address)
                tries_on = failure.cure is Cure.WAIT or (failure.cure is Cure.RETRY and self._reached)
                waited = anyio.current_time() - began
                if not tries_on or waited + pause > RETRY_S:
                    tried = f", tried for {waited:.0f} s" if tries_on else ""
                    raise LogUnavailable(f"cannot {doing} {self.address}{tried}: {failure.problem}") from None
                if not away:
                    logger.warning("redis_away", log=str(self.address), problem=failure.problem)
                away = True
                await anyio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                if away:
                    waited = anyio.current_time() - began
                    logger.info("redis_back", log=str(self.address), after_s=round(waited, 2))
                self._reached = True
                return result

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with anyio.move_on_after(GOODBYE_S, shield=True):
                await client.aclose()
