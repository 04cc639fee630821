"""A live crawl's state, an SQLite file: what to fetch next, what was seen, and the texts that wait to be drawn.

Two processes have it open: the crawler, which owns it by a lock on a file beside it, and the one that draws. What is
lost in a power cut is fetched or drawn again; what a restart must know is written before it is done. Every table is
bounded by ``LiveLimits``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

from targon.oracle.database import connect
from targon.oracle.errors import StoreUnavailable
from targon.oracle.sources.live.limits import LIVE_LIMITS, LiveLimits
from targon.oracle.sources.live.robots import Found, Robots
from targon.oracle.sources.live.urls import host_of, shape

APPLICATION_ID: Final = 0x5452474C
"""``TRGL`` in the file's header: this SQLite file is a live crawl's."""
SCHEMA_VERSION: Final = 1
CACHE_KIB: Final = 8_192

COUNTED: Final = {
    "taken": "a page whose text can be drawn",
    "unchanged": "a page that is as it was",
    "empty": "a page with too little text",
    "duplicate": "a page whose text was had before",
    "refused": "a page that doesn't want its text to be used",
    "disallowed": "an address that robots.txt disallows",
    "off_list": "a redirect to a host that isn't allowed",
    "redirects": "too many redirects, one after the other",
    "trap": "an address that looks like one of endlessly many",
    "gone": "an address at which the host has nothing for us",
    "busy": "a host that asked to be left alone for a while",
    "broken": "a fault that a host said is its own",
    "unreachable": "a host that couldn't be reached, or broke off",
    "slow": "an answer that took too long",
    "large": "an answer that is over its limit",
    "bomb": "an answer that unpacks to more than its limit",
    "corrupt": "an answer that can't be unpacked or read",
    "not_unicode": "an answer that is no text in the encoding that it should be in",
    "other_kind": "an answer that is neither HTML nor plain text",
    "private": "an address of this machine or of a private network",
    "robots_unreachable": "a robots.txt that couldn't be had, so that all is disallowed",
    "gave_up": "an address that failed too often",
}
"""What a crawl counts, and what each means."""

_TABLES: Final = (
    """CREATE TABLE urls (
        id INTEGER PRIMARY KEY, digest INTEGER NOT NULL UNIQUE, url TEXT NOT NULL, host TEXT NOT NULL,
        shape INTEGER NOT NULL, depth INTEGER NOT NULL, seed INTEGER NOT NULL, hops INTEGER NOT NULL, due REAL,
        tries INTEGER NOT NULL DEFAULT 0, etag TEXT NOT NULL DEFAULT '', modified TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX urls_due ON urls (host, seed, depth, id) WHERE due IS NOT NULL",
    "CREATE INDEX urls_shape ON urls (host, shape)",
    """CREATE TABLE hosts (
        host TEXT PRIMARY KEY, paused_until REAL NOT NULL DEFAULT 0, day INTEGER NOT NULL DEFAULT 0,
        pages INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    """CREATE TABLE robots (
        origin TEXT PRIMARY KEY, found TEXT NOT NULL, text TEXT NOT NULL, until REAL NOT NULL
    ) STRICT""",
    "CREATE TABLE seen (number INTEGER PRIMARY KEY, digest INTEGER NOT NULL UNIQUE) STRICT",
    """CREATE TABLE texts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, at REAL NOT NULL, chars INTEGER NOT NULL,
        draws INTEGER NOT NULL DEFAULT 0, text TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX texts_sizes ON texts (at, chars)",
    "CREATE TABLE counts (reason TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT",
)


@dataclass(frozen=True, slots=True)
class Target:
    """An address that is due."""

    id: int
    url: str
    depth: int
    """Links from a seed."""
    seed: bool
    hops: int
    """Redirects by which it was come to."""
    tries: int
    etag: str
    modified: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A text that waits to be drawn."""

    url: str
    at: float
    """When it was fetched, as seconds since 1970."""
    text: str


class Store:
    """The state. Its calls block, for about as long as writing to memory; one thread at a time makes them.

    Raises:
        StoreUnavailable: by all of them, if the file can't be read or written.
    """

    def __init__(self, path: Path, limits: LiveLimits = LIVE_LIMITS) -> None:
        self._path = path
        self._limits = limits
        with self._as_ours():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = _connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"{self._path}: the crawl's state can't be read or written: {error}; look at its disk, or remove the "
                "file to begin anew"
            ) from error

    def _do(self, statement: str, *values: str | float | None) -> Sequence[Any]:
        with self._as_ours():
            return self._db.execute(statement, values).fetchall()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        self._do("BEGIN IMMEDIATE")
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # -- what to fetch -----------------------------------------------------------------------------------

    def seed(self, urls: Sequence[str], hosts: Sequence[str], now: float) -> None:
        """Settle which addresses are seeds. What is due elsewhere than on these hosts is forgotten."""
        with self._whole():
            self._do("UPDATE urls SET seed = 0 WHERE seed")
            for url in urls:
                self._do(
                    """INSERT INTO urls (digest, url, host, shape, depth, seed, hops, due)
                    VALUES (?, ?, ?, ?, 0, 1, 0, ?)
                    ON CONFLICT (digest) DO UPDATE SET seed = 1, depth = 0, due = coalesce(due, excluded.due)""",
                    *(digest(url), url, host_of(url), digest(shape(url)), now),
                )
            for (host,) in self._do("SELECT DISTINCT host FROM urls"):
                if host not in hosts:
                    self._do("DELETE FROM urls WHERE host = ?", host)

    def add(self, urls: Sequence[str], depth: int, now: float, *, seed: bool = False, hops: int = 0) -> int:
        """Remember addresses that aren't known yet; how many of them were refused as one of endlessly many."""
        refused = 0
        room: dict[str, int] = {}
        with self._whole():
            for url in urls:
                if self._do("SELECT 1 FROM urls WHERE digest = ?", digest(url)):
                    if seed:
                        again = "UPDATE urls SET seed = 1, due = coalesce(due, ?) WHERE digest = ?"
                        self._do(again, now, digest(url))
                    continue
                host, form = host_of(url), digest(shape(url))
                if room.get(host, 0) < 1:
                    room[host] = self._room(host)
                like = "SELECT count(*) FROM urls WHERE host = ? AND shape = ?"
                if room[host] < 1 or self._do(like, host, form)[0][0] >= self._limits.same_shape:
                    refused += 1
                    continue
                room[host] -= 1
                self._do(
                    """INSERT INTO urls (digest, url, host, shape, depth, seed, hops, due)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                    *(digest(url), url, host, form, depth, int(seed), hops, now),
                )
        return refused

    def _room(self, host: str) -> int:
        """For how many more addresses there is room; the first that were fetched are forgotten for it."""
        room = self._limits.urls_per_host - int(
            self._do("SELECT count(*) FROM urls WHERE host = ?", host)[0][0]
        )
        if room > 0:
            return room
        self._do(
            """DELETE FROM urls WHERE id IN (
                SELECT id FROM urls WHERE host = ? AND due IS NULL ORDER BY id LIMIT ?
            )""",
            *(host, max(1, self._limits.urls_per_host // 10)),
        )
        return room + int(self._do("SELECT changes()")[0][0])

    def due(self, host: str, now: float) -> Target | None:
        """What to fetch next of a host: seeds, then what is nearest to them, and the newest of those."""
        rows = self._do(
            """SELECT id, url, depth, seed, hops, tries, etag, modified FROM urls
            WHERE host = ? AND due IS NOT NULL AND due <= ? ORDER BY seed DESC, depth, id DESC LIMIT 1""",
            *(host, now),
        )
        if not rows:
            return None
        number, url, depth, seed, hops, tries, etag, modified = rows[0]
        return Target(number, url, depth, bool(seed), hops, tries, etag, modified)

    def begin(self, target: Target, day: int) -> None:
        """Before a fetch, so that a page by which the crawler dies isn't tried for ever."""
        with self._whole():
            self._do("UPDATE urls SET tries = tries + 1 WHERE id = ?", target.id)
            self._do(
                """INSERT INTO hosts (host, day, pages) VALUES (?, ?, 1) ON CONFLICT (host) DO UPDATE
                SET pages = CASE day WHEN excluded.day THEN pages + 1 ELSE 1 END, day = excluded.day""",
                *(host_of(target.url), day),
            )

    def again(self, target: Target, due: float) -> None:
        """Try it again then; what was tried stays counted."""
        self._do("UPDATE urls SET due = ? WHERE id = ?", due, target.id)

    def done(self, target: Target, revisit: float, etag: str = "", modified: str = "") -> None:
        """It is done with; a seed is looked at again at a time."""
        self._do(
            "UPDATE urls SET due = ?, tries = 0, etag = ?, modified = ? WHERE id = ?",
            *(revisit if target.seed else None, etag[:1_000], modified[:100], target.id),
        )

    # -- hosts -------------------------------------------------------------------------------------------

    def knows(self, host: str) -> bool:
        """Whether anything was ever fetched from a host."""
        return bool(self._do("SELECT 1 FROM hosts WHERE host = ?", host))

    def touch(self, host: str) -> None:
        """Before anything is fetched from a host."""
        self._do("INSERT OR IGNORE INTO hosts (host) VALUES (?)", host)

    def pages(self, host: str, day: int) -> int:
        """How many pages of a host were asked for on a day."""
        rows = self._do("SELECT pages FROM hosts WHERE host = ? AND day = ?", host, day)
        return int(rows[0][0]) if rows else 0

    def pause(self, host: str, until: float) -> None:
        """A host is left alone until then."""
        self._do("UPDATE hosts SET paused_until = max(paused_until, ?) WHERE host = ?", until, host)

    def paused_until(self, host: str) -> float:
        rows = self._do("SELECT paused_until FROM hosts WHERE host = ?", host)
        return float(rows[0][0]) if rows else 0.0

    def robots(self, origin: str, now: float) -> tuple[Robots, float] | None:
        """What is believed of a robots.txt, and until when; None where it has to be asked for."""
        rows = self._do("SELECT found, text, until FROM robots WHERE origin = ? AND until > ?", origin, now)
        return (Robots(cast(Found, rows[0][0]), rows[0][1]), rows[0][2]) if rows else None

    def keep_robots(self, origin: str, robots: Robots, until: float) -> None:
        self._do(
            "INSERT OR REPLACE INTO robots VALUES (?, ?, ?, ?)", origin, robots.found, robots.text, until
        )

    # -- texts -------------------------------------------------------------------------------------------

    def keep(self, url: str, text: str, now: float, most: int) -> bool:
        """Keep a text, unless one like it was had before; the oldest make room.

        Args:
            most: texts to be kept.
        """
        with self._whole():
            words = digest(" ".join(text.casefold().split()))
            if self._do("SELECT 1 FROM seen WHERE digest = ?", words):
                return False
            self._do("INSERT INTO seen (digest) VALUES (?)", words)
            self._do("DELETE FROM seen WHERE number <= (SELECT max(number) FROM seen) - ?", self._limits.seen)
            self._do(
                "INSERT INTO texts (url, at, chars, text) VALUES (?, ?, ?, ?)", url, now, len(text), text
            )
            self._make_room(most)
        return True

    def _make_room(self, most: int) -> None:
        count, chars = self._do("SELECT count(*), total(chars) FROM texts")[0]
        while count > most or chars > self._limits.kept_chars:
            number, size = self._do("SELECT id, chars FROM texts ORDER BY id LIMIT 1")[0]
            self._do("DELETE FROM texts WHERE id = ?", number)
            count, chars = count - 1, chars - size

    def version(self) -> int:
        """Another number after another process changed something."""
        return int(self._do("PRAGMA data_version")[0][0])

    def waiting(self, since: float) -> Sequence[tuple[int, int]]:
        """The texts fetched since then that can be drawn: the number and the characters of each."""
        return self._do("SELECT id, chars FROM texts WHERE at >= ? ORDER BY at, id", since)

    def draw(self, number: int) -> tuple[Kept, bool] | None:
        """A text, and whether it is used up by this draw and forgotten; None where it is gone."""
        with self._whole():
            rows = self._do("SELECT url, at, text, chars, draws FROM texts WHERE id = ?", number)
            if not rows:
                return None
            url, at, text, chars, draws = rows[0]
            last = (draws + 1) * self._limits.chars_a_draw >= chars
            if last:
                self._do("DELETE FROM texts WHERE id = ?", number)
            else:
                self._do("UPDATE texts SET draws = draws + 1 WHERE id = ?", number)
        return Kept(url, at, text), last

    def forget(self, before: float) -> None:
        """Forget the texts that were fetched before then."""
        self._do("DELETE FROM texts WHERE at < ?", before)

    # -- counts ------------------------------------------------------------------------------------------

    def count(self, reason: str, number: int = 1) -> None:
        self._do(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET number = number + excluded.number",
            *(reason, number),
        )

    def counts(self) -> Mapping[str, int]:
        """How often what happened, for each of ``COUNTED``."""
        return dict.fromkeys(COUNTED, 0) | dict(self._do("SELECT reason, number FROM counts"))


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own a crawl's state: two crawlers of one state would ask hosts twice as often as either may.

    Raises:
        StoreUnavailable: if another process does.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".owner"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path}: can't be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreUnavailable(f"{path}: another process crawls with it, expected none") from None
    finally:
        os.close(lock)


def digest(text: str) -> int:
    """64 bits of a text's SHA-256, as SQLite holds integers."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big", signed=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = connect(
        path,
        application_id=APPLICATION_ID,
        version=SCHEMA_VERSION,
        tables=_TABLES,
        synchronous="NORMAL",
        cache_kib=CACHE_KIB,
    )
    connection.execute("PRAGMA journal_size_limit = 16777216")
    return connection
