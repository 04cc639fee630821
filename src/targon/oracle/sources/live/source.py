"""A live crawl as a source: the texts that its crawler found and that nobody drew yet."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final

import structlog

from targon.oracle.ports import Document
from targon.oracle.sources.live.limits import DAY_S
from targon.oracle.sources.live.settings import read_settings, state_path
from targon.oracle.sources.live.store import COUNTED, Store
from targon.protocol.primitives import Digest

WAIT_S: Final = 10.0
"""For which a draw waits in all, if nothing is there yet."""
RESTART_S: Final = 30.0
"""From one start of a crawler that ended by itself to the next."""
STOP_S: Final = 5.0
_POLL_S: Final = 0.1
_LOOK_S: Final = 1.0
"""Between two looks for new texts."""
_MANIFEST_DOMAIN: Final = b"targon/source/live/1\0"

logger = structlog.get_logger("targon.oracle")


class LiveText:
    """Pages of hosts that an operator chose, as they are now. Its calls may be made in any thread.

    The crawler is a process of its own: it runs from the first draw on, until this is closed or collected, or its
    process ends, however it does.

    Args:
        path: of the settings (``LiveSettings``), in TOML.
        allow_private: whether hosts on this machine and in private networks may be crawled.

    Raises:
        SourceError: if the settings can't be read.
    """

    def __init__(self, path: Path, *, allow_private: bool = False, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._settings = read_settings(path)
        self._state = state_path(path, self._settings)
        self._allow_private = allow_private
        self._wait_s = wait_s
        self._alone = threading.Lock()
        self._store: Store | None = None
        self._crawler: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize[..., LiveText] | None = None
        self._started = float("-inf")
        self._looked = float("-inf")
        self._version = -1
        self._texts: list[tuple[int, int]] = []
        self._sums: list[int] = []

    @property
    def name(self) -> str:
        return f"live:{self._path}"

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of what the crawl came to, over restarts too; ``COUNTED`` has all names."""
        with self._alone:
            if self._store is None and not self._state.exists():
                return dict.fromkeys(COUNTED, 0)
            return self._opened().counts()

    def manifest(self) -> Digest:
        """SHA-256 over the hosts and seeds: what they serve changes all the time, and that is the point."""
        whole = hashlib.sha256(_MANIFEST_DOMAIN)
        for names in (self._settings.hosts, sorted(self._settings.starts)):
            whole.update(f"{len(names)}\0".encode() + b"".join(f"{name}\0".encode() for name in names))
        return Digest(whole.hexdigest())

    def close(self) -> None:
        """Stop the crawler. A later draw starts it again."""
        with self._alone:
            if self._stop is not None:
                self._stop()
            if self._store is not None:
                self._store.close()
            self._crawler = self._stop = self._store = None
            self._started = float("-inf")
            self._version = -1

    def documents(self, random: Random) -> Iterator[Document]:
        """Draws among the texts that wait. It ends where none is left and none came for a while; there may be more
        later, for another iterator.

        Each character of the texts that wait is as likely to be drawn as each other. A text is forgotten once it was
        drawn about as often as it has passages, or is no longer fresh.

        Raises:
            StoreUnavailable: if the crawl's state can't be read or written.
        """
        patience = self._wait_s
        while True:
            document = self._draw(random)
            if document is not None:
                yield document
            elif patience > 0:
                patience -= _POLL_S
                time.sleep(_POLL_S)
            else:
                return

    def _draw(self, random: Random) -> Document | None:
        with self._alone:
            self._keep_crawling()
            store = self._opened()
            self._look(store)
            while self._texts:
                index = bisect_right(self._sums, random.randrange(self._sums[-1]))
                drawn = store.draw(self._texts[index][0])
                if drawn is None or drawn[1]:
                    del self._texts[index]
                    self._add_up(self._texts)
                if drawn is not None:
                    kept = drawn[0]
                    when = datetime.fromtimestamp(kept.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    return Document(kept.text, f"{kept.url} fetched {when}", random.random())
            return None

    def _look(self, store: Store) -> None:
        """See which texts there are, if that may have changed."""
        now = time.monotonic()
        if now < self._looked + (_LOOK_S if self._texts else 0.0):
            return
        self._looked = now
        version = store.version()
        if version != self._version or not self._texts:
            self._version = version
            self._add_up(store.waiting(time.time() - self._settings.fresh_days * DAY_S))

    def _add_up(self, texts: Sequence[tuple[int, int]]) -> None:
        self._texts = list(texts)
        self._sums = list(accumulate(chars for _, chars in texts))

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store(self._state)
        return self._store

    def _keep_crawling(self) -> None:
        now = time.monotonic()
        if self._crawler is not None:
            code = self._crawler.poll()
            if code is None or now < self._started + RESTART_S:
                return
            logger.warning("the crawler ended, and is started again", source=self.name, exit_code=code)
        if self._stop is not None:
            self._stop()
        command = [sys.executable, "-m", "targon.oracle.sources.live.process", str(self._path)]
        command += ["--allow-private"] if self._allow_private else []
        self._crawler = subprocess.Popen(  # noqa: S603 - ours
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the role, which ends it in its turn
        )
        self._stop = weakref.finalize(self, _end, self._crawler)
        self._started = now


def _end(crawler: subprocess.Popen[bytes]) -> None:
    """End a crawler: it stops when its stdin does, and is made to if it doesn't."""
    if crawler.stdin is not None:
        crawler.stdin.close()
    try:
        crawler.wait(STOP_S)
    except subprocess.TimeoutExpired:
        crawler.kill()
        crawler.wait()
