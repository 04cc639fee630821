"""``targon log migrate``: a log copied to where it is to be kept, and what came of that."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
from pydantic_settings import CliPositionalArg, CliSubCommand, CliUnknownArgs, get_subcommand

from targon.cli.commands.export import ExportLog
from targon.cli.commands.log import verifier_options
from targon.cli.errors import WrongOptions
from targon.cli.logs import LOG_FILE, find_log, opened_file, opened_redis, redis_address
from targon.cli.options import Options
from targon.cli.progress import progress_bar
from targon.cli.verifier_options import VerifierOptions
from targon.ledger import Log, Migrated, migrate

if TYPE_CHECKING:
    from targon.ledger.redis import RedisAddress

TARGET_PASSWORD = "TARGON_TARGET_PASSWORD"  # noqa: S105 - the name of a variable
"""The variable of the environment that holds the password of a Redis that is given by its address."""

REDIS = "redis"
_SQLITE = "sqlite:"
_SCHEMES = ("redis", "rediss")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log lies, or shall lie."""

    at: Path | RedisAddress

    def __str__(self) -> str:
        return str(self.at)

    def open(self, *, read_only: bool) -> AbstractAsyncContextManager[Log]:
        if isinstance(self.at, Path):
            return opened_file(self.at, read_only=read_only)
        return opened_redis(self.at, read_only=read_only)


class MigrateLog(Options):
    """Copy a log, record by record with the same hashes, and check that the standings folded from both are equal. A
    verifier may go on writing to the source: what it held at the beginning is copied. A run that was interrupted is
    gone on from, and so is an older copy.

    SOURCE and TARGET come first, then the verifier's own flags, if any: --database.host and its neighbors say where the
    Redis is that is called 'redis'; its password is taken from TARGON_VERIFIER__DATABASE__PASSWORD, or --config.
    """

    source: CliPositionalArg[str]
    """What to copy: a log's file or a verifier's folder, or 'redis'."""
    target: CliPositionalArg[str]
    """Where to: a file or folder, 'redis', or redis://HOST:PORT/INDEX (rediss:// over TLS; its password is taken from
    TARGON_TARGET_PASSWORD)."""
    flags: CliUnknownArgs

    def run(self) -> int:
        options = verifier_options(self.flags)
        source, target = source_of(self.source, options), target_of(self.target, options)
        if str(source) == str(target):
            raise WrongOptions([f"SOURCE and TARGET are both {source}, expected two logs"])
        done = anyio.run(_migrate, source, target)
        sys.stdout.write(told(done, target))
        return 0


class LogCommand(Options):
    """Copy a verifier's log to another place, or write what is released of it as signed segments."""

    migrate: CliSubCommand[MigrateLog]
    export: CliSubCommand[ExportLog]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, MigrateLog | ExportLog)
        return command.run()


def source_of(word: str, options: VerifierOptions) -> Place:
    """The log that is copied.

    Raises:
        CommandError: if there is none.
        WrongOptions: if the word names none.
    """
    if word == REDIS:
        return Place(redis_address(options.database))
    if word.partition("://")[0] in _SCHEMES:
        raise WrongOptions(
            [
                "SOURCE: got an address of Redis, expected the word redis: --database.host, --database.port and "
                "--database.index say where it is"
            ]
        )
    return Place(find_log(Path(word.removeprefix(_SQLITE))).resolve())


def target_of(word: str, options: VerifierOptions) -> Place:
    """Where it is copied to.

    Raises:
        WrongOptions: if the word names no place.
    """
    if word == REDIS:
        return Place(redis_address(options.database))
    if word.partition("://")[0] in _SCHEMES:
        return Place(_address(word, options))
    path = Path(word.removeprefix(_SQLITE)).expanduser()
    return Place((path if path.suffix and not path.is_dir() else path / LOG_FILE).resolve())


def _address(word: str, options: VerifierOptions) -> RedisAddress:
    from targon.ledger.redis import RedisAddress  # its client loads slowly

    expected = "expected redis://HOST:PORT/INDEX, or rediss:// over TLS"
    try:
        url = urlsplit(word)
        port, index = url.port, int(url.path.removeprefix("/") or "0")
    except ValueError as error:
        # what stands there may hold a password: it isn't repeated
        raise WrongOptions([f"TARGET: got an address that is none, {expected}"]) from error
    if url.username or url.password:
        raise WrongOptions([f"TARGET: got a password in the address, expected it in {TARGET_PASSWORD}"])
    if not url.hostname or url.query or url.fragment or index < 0:
        raise WrongOptions([f"TARGET: got {word!r}, {expected}"])
    tls, ca_file = url.scheme == "rediss", options.database.ca_file
    return RedisAddress(
        host=url.hostname,
        port=port or 6379,
        index=index,
        password=os.environ.get(TARGET_PASSWORD, ""),
        tls=tls,
        ca_file=ca_file.expanduser() if tls and ca_file is not None else None,
    )


async def _migrate(source: Place, target: Place) -> Migrated:
    with progress_bar() as bar:
        async with source.open(read_only=True) as old, target.open(read_only=False) as new:
            task = bar.add_task("records", total=None)
            return await migrate(old, new, lambda done, total: bar.update(task, completed=done, total=total))


def told(done: Migrated, target: Place) -> str:
    """What came of it, in a few lines."""
    head = done.head
    lines = [
        f"{target}: {done.copied} records copied; it ends at record {head.seq} ({head.hash})",
        "standings equal, byte for byte",
    ]
    if done.source != head:
        lines.append(
            f"the source went on to record {done.source.seq} meanwhile: to move the log, stop its verifier and run "
            "this again"
        )
    return "\n".join(lines) + "\n"
