"""Logs, from wherever the options say that they lie: a file, or a Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from targon.cli.errors import CommandError
from targon.cli.verifier_options import DatabaseOptions, VerifierOptions
from targon.ledger import Log, SqliteLog

if TYPE_CHECKING:
    from targon.ledger.redis import RedisAddress

LOG_FILE = "log.sqlite"
"""A verifier's log in its folder."""

SEGMENTS = "segments"
"""The folder in it that holds what is published of the log."""


@asynccontextmanager
async def opened_log(options: VerifierOptions, *, read_only: bool) -> AsyncGenerator[Log, None]:
    """A verifier's log, for as long as the block lasts: in Redis if a ``--database`` flag was given, else in a file of
    the folder ``--data.path``. For writing, it is made where there is none.

    Raises:
        LedgerError: if it cannot be opened.
    """
    if options.database.given:
        async with opened_redis(redis_address(options.database), read_only=read_only) as log:
            yield log
    else:
        path = options.data.path.expanduser() / LOG_FILE
        async with opened_file(path, read_only=read_only) as log:
            yield log


@asynccontextmanager
async def log_to_read(path: Path | None, options: VerifierOptions) -> AsyncGenerator[tuple[str, Log], None]:
    """A log and its name, for reading.

    Args:
        path: a file or folder, which goes before what the options say.

    Raises:
        CommandError: if there is none.
        LedgerError: if it cannot be opened.
    """
    if path is None and options.database.given:
        address = redis_address(options.database)
        async with opened_redis(address, read_only=True) as log:
            yield str(address), log
    else:
        file = find_log(path or options.data.path)
        async with opened_file(file, read_only=True) as log:
            yield str(file), log


@asynccontextmanager
async def opened_file(path: Path, *, read_only: bool) -> AsyncGenerator[Log, None]:
    """The log in a file."""
    async with aclosing(await SqliteLog.open(path, read_only=read_only)) as log:
        yield log


@asynccontextmanager
async def opened_redis(address: RedisAddress, *, read_only: bool) -> AsyncGenerator[Log, None]:
    """The log in a database of Redis."""
    from targon.ledger.redis import RedisLog

    async with RedisLog.open(address, read_only=read_only) as log:
        yield log


def redis_address(options: DatabaseOptions) -> RedisAddress:
    """Where the Redis is that the options name."""
    from targon.ledger.redis import RedisAddress  # its client loads slowly

    return RedisAddress(
        host=options.host,
        port=options.port,
        index=options.index,
        username=options.username,
        password=options.password.get_secret_value(),
        tls=options.tls,
        ca_file=None if options.ca_file is None else options.ca_file.expanduser(),
    )


def find_log(path: Path) -> Path:
    """The log that a path means.

    Raises:
        CommandError: if there is none.
    """
    place = path.expanduser()
    folder = place.is_dir() or not place.suffix
    tried = [place / LOG_FILE, place / "verifier-1" / LOG_FILE] if folder else [place]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise CommandError(
            f"no log at {place}: expected a file {LOG_FILE} there; give the verifier's --data.path, or a local "
            "network's folder, as --path; or the verifier's --database flags, if its log is in Redis"
        )
    return found
