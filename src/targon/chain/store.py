"""The embedded chain's SQLite file: its schema, how it is made and opened, and its transactions.

Every process holds one connection per opened chain. Writers take turns (``BEGIN IMMEDIATE``); readers never
wait for them (WAL). A transaction is whole or absent, also after ``kill -9``.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from targon.chain.errors import ChainExists, ChainUnavailable
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import Message
from targon.protocol.schedule import BLOCK_SECONDS, INTERVAL_BLOCKS

T = TypeVar("T")

APPLICATION_ID = 0x54_52_47_43
"""``TRGC`` in the file's header: this is an embedded chain."""

SCHEMA_VERSION = 2

BUSY_S = 5.0
"""How long a writer waits for its turn before the chain counts as locked."""

_SCHEMA = """
CREATE TABLE chain (
    chain_id BLOB NOT NULL, genesis_time REAL NOT NULL, settings TEXT NOT NULL
) STRICT;
CREATE TABLE head (
    block INTEGER NOT NULL,              -- the greatest block in which anything was written
    epoch INTEGER NOT NULL,              -- the last epoch that was computed
    reveal_epochs INTEGER NOT NULL       -- epochs from a commit to its reveal; 0: weights are set outright
) STRICT;
CREATE TABLE account (
    hotkey TEXT PRIMARY KEY, stake_rao INTEGER NOT NULL DEFAULT 0, nonce INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE neuron (
    uid INTEGER PRIMARY KEY, hotkey TEXT NOT NULL UNIQUE, registered_at INTEGER NOT NULL,
    last_update INTEGER, axon_host TEXT, axon_port INTEGER, permit INTEGER NOT NULL DEFAULT 0,
    incentive REAL NOT NULL DEFAULT 0, dividends REAL NOT NULL DEFAULT 0, emission REAL NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE weight (
    uid INTEGER NOT NULL, target INTEGER NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (uid, target)
) STRICT, WITHOUT ROWID;
CREATE TABLE "commit" (
    place INTEGER PRIMARY KEY, uid INTEGER NOT NULL, digest TEXT NOT NULL, block INTEGER NOT NULL
) STRICT;
CREATE TABLE anchor (
    hotkey TEXT PRIMARY KEY, digest TEXT NOT NULL, block INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE bond (
    uid INTEGER NOT NULL, target INTEGER NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (uid, target)
) STRICT, WITHOUT ROWID;
"""


class ChainSettings(Message):
    """What is fixed when an embedded chain is created. Defaults are the main network's."""

    netuid: Annotated[int, Field(ge=0, lt=65_536)] = 4
    block_seconds: Annotated[float, Field(gt=0.0)] = BLOCK_SECONDS
    tempo: Annotated[int, Field(ge=1)] = INTERVAL_BLOCKS
    """Blocks from one epoch to the next."""
    weights_version_key: Annotated[int, Field(ge=0, le=(1 << 53) - 1)] = 0
    """Weights set with a lower version key are refused; 0 takes any."""
    weights_rate_limit: Annotated[int, Field(ge=0)] = 100
    """Least number of blocks between two settings of weights by one neuron."""
    max_uids: Annotated[int, Field(ge=1, le=65_535)] = 256
    max_validators: Annotated[int, Field(ge=1)] = 64
    immunity_blocks: Annotated[int, Field(ge=0)] = 4_096
    """A neuron registered less than this many blocks ago is replaced only where everyone is that new."""
    reveal_epochs: Annotated[int, Field(ge=0, le=100)] = 0
    """Commit-reveal: epochs between a commit to weights and their reveal; 0: weights are set outright."""
    weights_min_stake: Annotated[int, Field(ge=0, le=21_000_000)] = 0
    """Least stake, in TAO, of a neuron that sets weights."""
    activity_cutoff: Annotated[int, Field(ge=1)] = 5_000
    """Stake that set no weights for more blocks than this does not count."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a chain file says of itself, once and for all."""

    chain_id: bytes
    genesis_time: float
    """Seconds since 1970-01-01 UTC."""
    settings: ChainSettings


class Store:
    """One open chain file. Its methods block; they may be called from any thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._connection = connection
        self._turn = threading.Lock()
        self._inode = _inode(path)
        self._closed = False

    @classmethod
    def create(cls, path: Path, settings: ChainSettings, genesis_time: float) -> None:
        """Make a chain file; it appears whole or not at all.

        Raises:
            ChainExists: if a file lies there already.
            ChainUnavailable: if it cannot be made there.
        """
        if path.exists():
            raise _exists(path)
        if not path.parent.is_dir():
            raise ChainUnavailable(
                f"chain {path}: the folder {path.parent} does not exist; "
                f"create it with: mkdir -p {path.parent}"
            )
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with _sqlite_errors(path), closing(_connect(draft, "rwc")) as connection:
                connection.executescript(
                    f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
                    f"PRAGMA journal_mode = WAL; {_SCHEMA}"
                )
                connection.execute(
                    "INSERT INTO chain VALUES (?, ?, ?)",
                    (secrets.token_bytes(32), genesis_time, settings.to_bytes().decode()),
                )
                connection.execute("INSERT INTO head VALUES (0, 0, ?)", (settings.reveal_epochs,))
            os.link(draft, path)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            raise ChainUnavailable(f"chain {path}: cannot be created: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a chain file that exists.

        Raises:
            ChainUnavailable: if there is none, or it is no chain of this version, or not whole.
        """
        if not path.is_file():
            raise ChainUnavailable(
                f"chain {path}: got no file there, expected an embedded chain; check the path, or create one "
                f"with: targon chain create {shlex.quote(str(path))}"
            )
        with _sqlite_errors(path):
            connection = _connect(path, "rw")
            try:
                return cls(path, connection, _read_identity(path, connection))
            except BaseException:
                connection.close()
                raise

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run reads that all see the same state."""
        return self._transaction("BEGIN", work)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run reads and writes that take effect together or, if ``work`` raises, not at all."""
        return self._transaction("BEGIN IMMEDIATE", work)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._connection.close()

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._turn, _sqlite_errors(self.path):
            if self._closed:
                raise ChainUnavailable(f"chain {self.path}: was closed by this process; open it again")
            if _inode(self.path) != self._inode:
                raise ChainUnavailable(
                    f"chain {self.path}: the file was deleted or replaced since it was opened; open it again"
                )
            self._connection.execute(begin)
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return result


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    # In WAL mode NORMAL survives the death of any process; only the machine's own may lose the newest blocks.
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _read_identity(path: Path, connection: sqlite3.Connection) -> Identity:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise ChainUnavailable(
            f"chain {path}: got a SQLite file of another application (id {application:#x}), expected an "
            f"embedded chain (id {APPLICATION_ID:#x}); check the path"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise ChainUnavailable(
            f"chain {path}: got schema version {version}, expected {SCHEMA_VERSION}; run the version of "
            "targon that made it, or create a new chain"
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise ChainUnavailable(
            f"chain {path}: the file is damaged ({verdict}); restore it or create a new chain"
        )
    row = connection.execute("SELECT chain_id, genesis_time, settings FROM chain").fetchone()
    if row is None:
        raise ChainUnavailable(f"chain {path}: the file is damaged (it names no chain); create a new chain")
    chain_id, genesis_time, settings = row
    try:
        return Identity(chain_id, genesis_time, ChainSettings.from_bytes(settings))
    except MalformedMessage as error:
        raise ChainUnavailable(f"chain {path}: its settings cannot be read: {error}") from error


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise ChainUnavailable(f"chain {path}: {_explain(error)}") from error


def _explain(error: sqlite3.DatabaseError) -> str:
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_NOTADB:
            return "got a file that is no SQLite database, expected an embedded chain; check the path"
        case code if code is not None and code & 0xFF == sqlite3.SQLITE_CORRUPT:
            return f"the file is damaged ({error}); restore it or create a new chain"
        case code if code is not None and code & 0xFF == sqlite3.SQLITE_BUSY:
            return (
                f"locked: another process has been writing to it for over {BUSY_S:g} s; "
                "stop that process (fuser shows which) or try again"
            )
        case code if code is not None and code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            return (
                f"cannot be written ({error}); give this user read and write access to the file "
                "and its folder"
            )
        case _:
            return f"SQLite failed ({error})"


def _exists(path: Path) -> ChainExists:
    return ChainExists(
        f"chain {path}: got a path where a file lies already, expected a free one; open that chain or "
        "move it away"
    )


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
