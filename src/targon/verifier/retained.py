"""What was said, kept only as long as an audit needs it, and readable only with a key that lies beside it.

The log holds digests alone. An answer that is drawn for an audit is needed until it is judged, over a crash too; so it
is kept here, encrypted, before the log says that there is one. With its verdict a user's is deleted. Of the verifier's
own work (challenges, and inferences that it sent itself; nobody's secret once they were sent) the answers of the last
``OWN_BLOCKS`` stay, as far as ``OWN_BYTES`` hold them: until the log that tells of them is released and exported, for
whoever checks it on an engine of their own.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import anyio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

from targon.protocol.messages import GenerateRequest, GenerateResponse, Message
from targon.protocol.primitives import Block
from targon.protocol.schedule import INTERVAL_BLOCKS

T = TypeVar("T")

OWN_BLOCKS: Final = 8 * INTERVAL_BLOCKS
"""How long answers to the verifier's own work stay, by the blocks that requests name: an interval is released an
interval or two after its end, and later where weights are committed to first."""
OWN_BYTES: Final = 1 << 28
"""What they may take, sealed; the oldest go first. A long one takes about 5 KB: those of ten challenges a block and
of the own inferences to 256 provers fit."""
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
BUSY_TIMEOUT_S: Final = 10.0

FILE: Final = "content.sqlite"
KEY_FILE: Final = "content.key"

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS content
 (attempt INTEGER PRIMARY KEY, own INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS own_content ON content (attempt) WHERE own = 1"
_OWN_SIZE: Final = "SELECT COALESCE(SUM(LENGTH(sealed)), 0) FROM content WHERE own = 1"
_OLDEST: Final = "SELECT attempt, sealed FROM content WHERE own = 1 ORDER BY attempt LIMIT 1"


class ContentUnreadable(Exception):
    """What was kept can't be read: another key, or damage. The message says what to do."""


class ContentUnwritten(Exception):
    """What should be kept can't be written: the disk is full, say."""


class Content(Message):
    """One answer, and what was asked."""

    request: GenerateRequest
    response: GenerateResponse
    tokens_per_s: float | None = Field(default=None, ge=0.0)
    """Speed after the first token; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one attempt."""

    attempt: int
    request: GenerateRequest
    response: GenerateResponse


class Retained:
    """The content of a verifier's data folder. One process writes it; others may read.

    The SQLite file holds nothing readable: each row is AES-256-GCM over the compressed content, bound to its attempt.
    """

    def __init__(self, connection: sqlite3.Connection, key: bytes) -> None:
        self._db = connection
        self._cipher = AESGCM(key)
        self._lock = threading.Lock()
        self._own_bytes = 0
        """What the verifier's own takes, sealed."""
        self._oldest: Block | None = None
        """The block that the oldest of it names; None: it has yet to be read."""

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Open the content of a folder; made on first use, with its key. Blocks.

        Raises:
            ContentUnreadable: if the key isn't one, or there is nothing to read.
        """
        path = folder / FILE
        if read_only and not path.exists():
            raise ContentUnreadable(f"{path}: there is none, expected a verifier's data folder")
        key = content_key(folder, make=not read_only)
        mode = "ro" if read_only else "rwc"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        if not read_only:
            os.chmod(path, 0o600)  # noqa: PTH101 - as the key's
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(_TABLE)
            connection.execute(_INDEX)
        retained = cls(connection, key)
        if not read_only:
            retained._own_bytes = connection.execute(_OWN_SIZE).fetchone()[0]
        return retained

    def close(self) -> None:
        self._db.close()

    async def keep(self, content: Content, *, own: bool) -> None:
        """Keep an answer; returns once a crash of this process can't lose it.

        Args:
            own: whether the verifier asked for itself.

        Raises:
            ContentUnwritten: if it can't be written.
        """
        attempt = content.request.attempt_number
        try:
            await self._in_thread(
                lambda: self._keep(attempt, self._seal(attempt, content), content.request.block, own)
            )
        except sqlite3.Error as error:
            raise ContentUnwritten(f"{FILE}: {error}; look at its disk") from error

    async def get(self, attempt: int) -> Content | None:
        """What is kept of an attempt; None: nothing is.

        Raises:
            ContentUnreadable: if it isn't what was kept.
        """
        row = await self._in_thread(
            lambda: self._db.execute("SELECT sealed FROM content WHERE attempt = ?", (attempt,)).fetchone()
        )
        return None if row is None else self._opened(attempt, row[0])

    async def forget(self, attempt: int) -> None:
        """Delete what a user was told, once it is judged. The verifier's own stays."""
        await self._in_thread(
            lambda: self._db.execute("DELETE FROM content WHERE attempt = ? AND own = 0", (attempt,))
        )

    async def forget_all_but(self, attempts: Collection[int]) -> None:
        """Delete what a crash left of users' that awaits no verdict."""

        def delete() -> None:
            rows = self._db.execute("SELECT attempt FROM content WHERE own = 0").fetchall()
            gone = [row for row in rows if row[0] not in attempts]
            self._db.executemany("DELETE FROM content WHERE attempt = ? AND own = 0", gone)

        await self._in_thread(delete)

    def own(self, first: int = 0, last: int = (1 << 63) - 1) -> Iterator[Kept]:
        """The verifier's own work that is kept, oldest first. Blocks.

        Args:
            first: number of the first attempt that is asked for; ``last``: of the last.

        Raises:
            ContentUnreadable: at the first that isn't what was kept.
        """
        with self._alone():
            rows = self._db.execute(
                "SELECT attempt, sealed FROM content WHERE own = 1 AND attempt BETWEEN ? AND ? ORDER BY attempt",
                (first, last),
            )
            found = rows.fetchall()
        for attempt, sealed in found:
            content = self._opened(attempt, sealed)
            yield Kept(attempt, content.request, content.response)

    def _keep(self, attempt: int, sealed: bytes, block: Block, own: bool) -> None:
        if own:
            again = "SELECT COALESCE(SUM(LENGTH(sealed)), 0) FROM content WHERE own = 1 AND attempt = ?"
            self._own_bytes += len(sealed) - self._db.execute(again, (attempt,)).fetchone()[0]
        self._db.execute("INSERT OR REPLACE INTO content VALUES (?, ?, ?)", (attempt, int(own), sealed))
        if own:
            self._drop_old(block)

    def _drop_old(self, now: Block) -> None:
        """Delete of the verifier's own what is too old, and the oldest of what is too much."""
        while self._own_bytes > OWN_BYTES or self._oldest is None or self._oldest < now - OWN_BLOCKS:
            attempt, sealed = self._db.execute(_OLDEST).fetchone()
            if self._own_bytes <= OWN_BYTES:
                try:
                    self._oldest = self._opened(attempt, sealed).request.block
                except ContentUnreadable:
                    self._oldest = now  # whoever reads it is told; it goes when there is too much
                if self._oldest >= now - OWN_BLOCKS:
                    return
            self._db.execute("DELETE FROM content WHERE attempt = ?", (attempt,))
            self._own_bytes -= len(sealed)
            self._oldest = None

    def _seal(self, attempt: int, content: Content) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        packed = zlib.compress(content.to_bytes(), 1)
        return nonce + self._cipher.encrypt(nonce, packed, attempt.to_bytes(8, "big"))

    def _opened(self, attempt: int, sealed: bytes) -> Content:
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            packed = self._cipher.decrypt(nonce, rest, attempt.to_bytes(8, "big"))
        except (InvalidTag, ValueError) as error:
            raise ContentUnreadable(
                f"what is kept of attempt {attempt} can't be decrypted: {KEY_FILE} is another folder's, or the file "
                "was damaged; restore the two together"
            ) from error
        return Content.from_bytes(zlib.decompress(packed))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def alone() -> T:
            with self._alone():
                return work()

        return await anyio.to_thread.run_sync(alone)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            yield


def content_key(folder: Path, *, make: bool) -> bytes:
    """The key of a folder's content; readable by its owner only.

    Args:
        make: whether to make it where there is none.

    Raises:
        ContentUnreadable: if there is none, or the file is not what it should be.
    """
    path = folder / KEY_FILE
    if make:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ContentUnreadable(f"{path}: could not be read: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise ContentUnreadable(
            f"{path}: got {len(key)} bytes, expected {KEY_BYTES}. It was damaged: restore it from a backup, or delete "
            f"it together with {FILE}; audits that are under way then end as inconclusive"
        )
    return key
