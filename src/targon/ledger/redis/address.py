"""Where a Redis is, and how it is talked to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
"""Longest wait for one answer. A script that appends a day's records at once takes well under a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """A database of a Redis server: what ``--database.host`` and its neighbors say."""

    host: str
    port: int = 6379
    index: int = 0
    """Which of the server's numbered databases; a log wants one of its own."""
    username: str = ""
    """Empty: the server's default user."""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: Path | None = None
    """Certificates of the authorities that the server's certificate is checked with; None: the system's."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.index}"

    def client(self) -> Redis:
        """A client that tries nothing twice: whether a call may be repeated is for its caller to know."""
        return Redis(
            host=self.host,
            port=self.port,
            db=self.index,
            username=self.username or None,
            password=self.password or None,
            ssl=self.tls,
            ssl_cert_reqs="required",
            ssl_check_hostname=True,
            ssl_ca_certs=None if self.ca_file is None else str(self.ca_file),
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
