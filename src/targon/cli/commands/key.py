"""``targon key``: whom a gateway serves, and how much."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, get_subcommand
from rich.console import Console
from rich.table import Table

from targon.cli.errors import CommandError
from targon.cli.options import Options
from targon.gateway.keys import DAY_S, FILE_NAME, SCOPES, Allowed, Key, KeyFile, Usage


class KeysOptions(Options):
    """Where the gateway keeps its keys."""

    path: Path = Path("~/.targon/verifier")
    """The gateway's --data.path: a verifier's, if the gateway is within it."""


class CreateKey(Options):
    """Make an API key, and print it. It is shown this once: what is kept can't be turned back into it."""

    name: str = Field("", max_length=64)
    """Whose it is, for your own lists and logs."""
    scope: Literal["all", "inference", "receipts"] = "all"
    """What it is for: to ask models, to read receipts, or both."""
    models: str = ""
    """Models that it may ask for, with commas between; without it, all."""
    requests_per_minute: int = Field(Allowed().requests_per_minute, ge=0)
    """Requests a minute; 0: no limit."""
    tokens_per_minute: int = Field(Allowed().tokens_per_minute, ge=0)
    """Tokens of prompts and answers a minute; 0: no limit."""
    concurrent: int = Field(Allowed().concurrent, ge=0)
    """Requests being answered at the same time; 0: no limit."""
    daily_tokens: int = Field(0, ge=0)
    """Tokens of prompts and answers a day, from midnight to midnight UTC; 0: no limit."""
    total_tokens: int = Field(0, ge=0)
    """Tokens of prompts and answers in all; 0: no limit."""
    expires_days: float = Field(0.0, ge=0.0, le=36_500.0)
    """Days until it stops working; 0: never."""
    data: KeysOptions = KeysOptions()

    def run(self) -> int:
        if not self.name.strip():
            raise CommandError("--name is missing: expected a name for the key, for your own lists and logs")
        now = int(time.time())
        file = _opened(self.data.path)
        try:
            key, secret = file.create(
                self.name.strip(),
                now=now,
                scopes=SCOPES if self.scope == "all" else (self.scope,),
                models=[name.strip() for name in self.models.split(",") if name.strip()],
                allowed=Allowed(
                    requests_per_minute=self.requests_per_minute,
                    tokens_per_minute=self.tokens_per_minute,
                    concurrent=self.concurrent,
                    daily_tokens=self.daily_tokens,
                    total_tokens=self.total_tokens,
                ),
                expires_at=now + int(self.expires_days * DAY_S) if self.expires_days else None,
            )
        finally:
            file.close()
        sys.stderr.write(f"{key.id}, made in {file.path}; keep the key: it is not shown again\n")
        sys.stdout.write(f"{secret}\n")
        return 0


class ListKeys(Options):
    """List the keys with their limits and what they used; never the keys themselves."""

    data: KeysOptions = KeysOptions()

    def run(self) -> int:
        now = int(time.time())
        file = _opened(self.data.path, must_exist=True)
        try:
            keys, used = file.keys(), file.used(now // DAY_S)
        finally:
            file.close()
        columns = (
            "id",
            "name",
            "state",
            "for",
            "requests/min",
            "tokens/min",
            "at once",
            "tokens today",
            "tokens ever",
        )
        table = Table(*columns, box=None)
        for key in keys.values():
            table.add_row(*_row(key, *used.get(key.id, (Usage(), Usage())), now=now))
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(table if keys else "no keys yet; 'targon key create --name NAME' makes one")
        return 0


class RevokeKey(Options):
    """Revoke a key, by its id or its name. A running gateway knows within seconds."""

    key: CliPositionalArg[str]
    """Its id, as 'targon key list' shows it, or its name."""
    data: KeysOptions = KeysOptions()

    def run(self) -> int:
        file = _opened(self.data.path, must_exist=True)
        try:
            revoked = file.revoke(self.key, now=int(time.time()))
        finally:
            file.close()
        sys.stdout.write(f"{revoked.id} ({revoked.name}) is revoked\n")
        return 0


class KeyCommand(Options):
    """Make, list and revoke API keys of a gateway's users."""

    create: CliSubCommand[CreateKey]
    list: CliSubCommand[ListKeys]
    revoke: CliSubCommand[RevokeKey]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, CreateKey | ListKeys | RevokeKey)
        return command.run()


def _opened(folder: Path, *, must_exist: bool = False) -> KeyFile:
    path = folder.expanduser() / FILE_NAME
    if must_exist and not path.is_file():
        raise CommandError(
            f"no keys at {path}: expected the gateway's --data.path; 'targon key create' makes the first"
        )
    return KeyFile(path)


def _row(key: Key, today: Usage, ever: Usage, *, now: int) -> tuple[str, ...]:
    allowed = key.allowed
    limits = (allowed.requests_per_minute, allowed.tokens_per_minute, allowed.concurrent)
    return (
        key.id,
        key.name,
        _state(key, now),
        ", ".join([*sorted(key.scopes), *sorted(key.models)]),
        *(str(limit or "no limit") for limit in limits),
        _of(today.tokens, allowed.daily_tokens),
        _of(ever.tokens, allowed.total_tokens),
    )


def _of(used: int, allowed: int) -> str:
    return f"{used} of {allowed}" if allowed else str(used)


def _state(key: Key, now: int) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and now >= key.expires_at:
        return "expired"
    return "valid"
