"""Users' keys: what a key is, and the file that keeps them.

A key is 256 random bits, shown once. What is kept is their SHA-256: who reads the file can use no key, and as the bits
are random, nothing slower is needed to keep them from being guessed. A key is found by that digest, so that how long it
takes tells nothing of any key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from targon.gateway.errors import KeyFileBroken, NoSuchKey

SECRET_BYTES = 32
PREFIX = "tg-"
FILE_NAME = "keys.sqlite"
DAY_S = 86_400
SCHEMA_VERSION = 1
APPLICATION_ID = 0x7467_6B79
"""``tgky``: tells this file from others of SQLite's."""
BUSY_S = 5.0
"""How long one process waits for another that writes."""

Scope = Literal["inference", "receipts"]
SCOPES: tuple[Scope, ...] = ("inference", "receipts")

_FORM = re.compile(r"tg-[A-Za-z0-9_-]{43}")

_TABLES = f"""
CREATE TABLE keys (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, scopes TEXT NOT NULL, models TEXT NOT NULL,
    requests_per_minute INTEGER NOT NULL, tokens_per_minute INTEGER NOT NULL, concurrent INTEGER NOT NULL,
    daily_tokens INTEGER NOT NULL, total_tokens INTEGER NOT NULL,
    created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER
) STRICT;
CREATE TABLE usage (
    key TEXT NOT NULL REFERENCES keys(id), day INTEGER NOT NULL, requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, PRIMARY KEY (key, day)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a key may do. 0 means that there is no limit."""

    requests_per_minute: int = 600
    tokens_per_minute: int = 1_000_000
    concurrent: int = 64
    """Requests being answered at the same time."""
    daily_tokens: int = 0
    """Tokens of prompts and answers from midnight to midnight, UTC."""
    total_tokens: int = 0
    """Tokens of prompts and answers in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept: all of it but the key itself."""

    id: str
    name: str
    scopes: frozenset[Scope]
    models: frozenset[str]
    """Models that it may ask for; empty: all."""
    allowed: Allowed
    created_at: int
    """Seconds since 1970-01-01 UTC, as the others."""
    expires_at: int | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used: of one key on one day, or in all."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def looks_like_a_key(word: str) -> bool:
    """Whether it has a key's form."""
    return _FORM.fullmatch(word) is not None


def digest_of(secret: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode()).digest()


class KeyFile:
    """The file of keys and of what was used. Its methods wait for the disk: call them in a thread.

    Several processes may have it open: a gateway that counts, and the command that makes and revokes keys.
    """

    def __init__(self, path: Path) -> None:
        """Open it; it is made where there is none, readable by its owner only.

        Raises:
            KeyFileBroken: if it is something else, or of a newer version.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            with self._checked():
                self._set_up()
        except KeyFileBroken:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def version(self) -> int:
        """Differs from before if another process wrote since."""
        with self._checked():
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def create(
        self,
        name: str,
        *,
        now: int,
        scopes: Sequence[Scope] = SCOPES,
        models: Sequence[str] = (),
        allowed: Allowed | None = None,
        expires_at: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key; returns it with its secret, which is nowhere afterwards."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        allowed = allowed or Allowed()
        key = Key(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            scopes=frozenset(scopes),
            models=frozenset(models),
            allowed=allowed,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
        with self._checked():
            self._connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key.id,
                    digest_of(secret),
                    name,
                    json.dumps(sorted(key.scopes)),
                    json.dumps(sorted(key.models)),
                    allowed.requests_per_minute,
                    allowed.tokens_per_minute,
                    allowed.concurrent,
                    allowed.daily_tokens,
                    allowed.total_tokens,
                    now,
                    expires_at,
                    None,
                ),
            )
        return key, secret

    def revoke(self, which: str, *, now: int) -> Key:
        """Revoke a key, by its id or its name.

        Raises:
            NoSuchKey: if there is none, or several have the name.
        """
        found = [key for key in self.keys().values() if which in {key.id, key.name}]
        exact = [key for key in found if key.id == which] or found
        if len(exact) != 1:
            ids = ", ".join(key.id for key in exact)
            raise NoSuchKey(
                f"got {which!r}, expected the id or name of one key; "
                + (f"several have that name: {ids}" if exact else "'targon key list' names them")
            )
        (key,) = exact
        with self._checked():
            self._connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key.id)
            )
        return key

    def keys(self) -> dict[bytes, Key]:
        """Every key by its digest, in the order in which they were made."""
        with self._checked():
            rows = self._connection.execute("SELECT * FROM keys ORDER BY created_at, rowid").fetchall()
            return {row[1]: _key(row) for row in rows}

    def used(self, day: int) -> dict[str, tuple[Usage, Usage]]:
        """What each key used on a day (days since 1970-01-01 UTC), and in all."""
        with self._checked():
            rows = self._connection.execute(
                "SELECT key, day, requests, prompt_tokens, completion_tokens FROM usage"
            ).fetchall()
        found: dict[str, tuple[Usage, Usage]] = {}
        for key, its_day, *numbers in rows:
            today, ever = found.get(key, (Usage(), Usage()))
            usage = Usage(*numbers)
            found[key] = (today + usage if its_day == day else today, ever + usage)
        return found

    def add(self, usage: Mapping[tuple[str, int], Usage]) -> None:
        """Count what was used, by key and day."""
        with self._checked(), _transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, day) DO UPDATE SET "
                "requests = requests + excluded.requests, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                "completion_tokens = completion_tokens + excluded.completion_tokens",
                [
                    (key, day, one.requests, one.prompt_tokens, one.completion_tokens)
                    for (key, day), one in usage.items()
                ],
            )

    def _set_up(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        with _transaction(self._connection):
            (application,) = run("PRAGMA application_id").fetchone()
            (version,) = run("PRAGMA user_version").fetchone()
            if (application, version) == (0, 0) and not run("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    run(statement)
            elif (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
                raise KeyFileBroken(
                    f"{self.path}: got another kind of file, or one of version {version}, expected a file of keys "
                    f"of version {SCHEMA_VERSION}; was it written by a newer targon?"
                )

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise KeyFileBroken(
                f"{self.path} can't be used: {error}; restore it from a backup, or make new keys in another folder"
            ) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _key(row: tuple[object, ...]) -> Key:
    (
        identity,
        _,
        name,
        scopes,
        models,
        requests,
        tokens,
        concurrent,
        daily,
        total,
        created_at,
        expires_at,
        revoked_at,
    ) = row
    return Key(
        id=str(identity),
        name=str(name),
        scopes=frozenset(json.loads(str(scopes))),
        models=frozenset(json.loads(str(models))),
        allowed=Allowed(
            requests_per_minute=_number(requests),
            tokens_per_minute=_number(tokens),
            concurrent=_number(concurrent),
            daily_tokens=_number(daily),
            total_tokens=_number(total),
        ),
        created_at=_number(created_at),
        expires_at=None if expires_at is None else _number(expires_at),
        revoked_at=None if revoked_at is None else _number(revoked_at),
    )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
