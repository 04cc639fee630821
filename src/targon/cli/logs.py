"""A verifier's log: in Redis where any --database.* is given, else in SQLite."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from targon.cli.verifier_options import DatabaseOptions, VerifierOptions
from targon.ledger import Log, SqliteLog

if TYPE_CHECKING:
    from targon.ledger.redis import RedisAddress


@asynccontextmanager
async def opened_log(options: VerifierOptions, *, read_only: bool) -> AsyncGenerator[Log, None]:
    """The log that a verifier with these options has, for as long as the block lasts.

    Raises:
        LedgerError: if it can't be opened; as the adapter says.
    """
    if options.database.given:
        # imported late: its client takes a while to load, and most verifiers need none
        from targon.ledger.redis import RedisLog

        async with RedisLog.open(address_of(options.database), read_only=read_only) as log:
            yield log
        return
    path = options.data.path.expanduser() / "log.sqlite"
    async with aclosing(await SqliteLog.open(path, read_only=read_only)) as log:
        yield log


def address_of(options: DatabaseOptions) -> RedisAddress:
    """Where Redis is."""
    from targon.ledger.redis import RedisAddress

    return RedisAddress(
        host=options.host,
        port=options.port,
        index=options.index,
        password=options.password.get_secret_value(),
        tls=options.tls,
        ca_file=None if options.ca_file is None else options.ca_file.expanduser(),
    )
