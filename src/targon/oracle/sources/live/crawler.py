"""The crawl itself: one task for each host, and between two fetches of a host the time that it is owed.

1. Nothing is fetched but from the hosts that are allowed. A redirect is no exception: where it leads is remembered
   as an address like others, if its host is allowed, and fetched when that host's turn comes.
2. Every fetch has its host's *turn*: one at a time, and begun no sooner after the end of the one before than the gap,
   which is the largest of what the settings, the host's robots.txt and ``LiveLimits`` say. After a start, a host that
   was fetched from before waits for its gap at first, since nobody knows when that was.
3. Before a page, its host's robots.txt: asked for once a day, and where it can't be had, nothing is fetched.
4. A host that answers 429 or 503 is left alone as long as it says, and one that fails thrice in a row for a while.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Final

import anyio
import structlog
from anyio.lowlevel import checkpoint

from targon.oracle.sources.live.fetch import Answer, Failed, Fetcher
from targon.oracle.sources.live.limits import DAY_S, LIVE_LIMITS, LiveLimits
from targon.oracle.sources.live.page import page_of
from targon.oracle.sources.live.robots import Robots, Rules, judged
from targon.oracle.sources.live.settings import LiveSettings
from targon.oracle.sources.live.store import Store, Target
from targon.oracle.sources.live.urls import authority, host_of, normalised, origin, trap

logger = structlog.get_logger("targon.oracle")

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BUSY: Final = frozenset({429, 503})
_MISSES: Final = 3
"""Failures in a row, after which a host is left alone for a while."""


class _Host:
    """What a host is owed. Times are of ``time.monotonic``, so that a clock that is set changes nothing."""

    def __init__(self, ended: float) -> None:
        self.turn = anyio.Lock()
        self.ended = ended
        """When the last fetch ended."""
        self.delay_s = 0.0
        """What its robots.txt asks for."""
        self.misses = 0


class Crawler:
    """A crawl, from its state and back into it.

    Args:
        watch: entered while a page is read; what it does where that takes too long is its own affair.
        allow_private: whether the settings alone decide about the gap.
    """

    def __init__(
        self,
        settings: LiveSettings,
        store: Store,
        fetcher: Fetcher,
        *,
        watch: Callable[[], AbstractContextManager[None]] = nullcontext,
        allow_private: bool = False,
        limits: LiveLimits = LIVE_LIMITS,
    ) -> None:
        self._settings = settings
        self._store = store
        self._fetcher = fetcher
        self._watch = watch
        self._limits = limits
        self._least_s = (
            settings.least_seconds if allow_private else max(settings.least_seconds, limits.least_gap_s)
        )
        self._fresh_s = settings.fresh_days * DAY_S
        self._revisit_s = settings.revisit_minutes * 60
        self._rules: dict[str, tuple[Rules, float]] = {}
        self._at_once = anyio.CapacityLimiter(limits.at_once)
        began = time.monotonic()
        self._hosts = {name: _Host(began if store.knows(name) else float("-inf")) for name in settings.names}

    async def run(self) -> None:
        """Crawl until cancelled."""
        self._store.seed(self._settings.starts, self._settings.names, time.time())
        logger.info("crawl begun", hosts=len(self._hosts), seeds=len(self._settings.starts))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._forget)
            for name in self._hosts:
                tasks.start_soon(self._crawl, name)

    async def _forget(self) -> None:
        while True:
            self._store.forget(time.time() - self._fresh_s)
            await anyio.sleep(min(self._fresh_s, 600.0))

    async def _crawl(self, name: str) -> None:
        """One host, for ever."""
        while True:
            await checkpoint()  # thousands of addresses may be done with, and none of them fetched
            now = time.time()
            target = None
            # a clock that was set back may not make a pause longer than any is
            pause = min(self._store.paused_until(name) - now, self._limits.longest_wait_s)
            if pause <= 0 and self._store.pages(name, day_of(now)) < self._settings.pages_per_day:
                target = self._store.due(name, now)
            if target is None:
                await anyio.sleep(self._limits.poll_s)
                continue
            try:
                await self._visit(name, target)
            except Failed as failed:
                self._failed(name, target, failed)

    # -- one page ----------------------------------------------------------------------------------------

    async def _visit(self, name: str, target: Target) -> None:
        if target.tries >= self._limits.tries:
            raise Failed("gave_up", f"after {target.tries} tries")
        rules, until = await self._robots(target.url)
        if rules is None:
            self._store.again(target, until)
            return
        if not rules.allow(target.url):
            raise Failed("disallowed")
        asked = {"If-None-Match": target.etag, "If-Modified-Since": target.modified}
        async with self._turn(name):
            if self._store.paused_until(name) > time.time():
                return
            self._store.begin(target, day_of(time.time()))
            answer = await self._fetcher.get(
                target.url, {key: value for key, value in asked.items() if value}, self._limits.body_bytes
            )
        self._take(name, target, answer)

    def _take(self, name: str, target: Target, answer: Answer) -> None:
        now = time.time()
        if answer.status in _BUSY:
            self._leave_alone(name, answer)
            raise Failed("busy", str(answer.status), again=True)
        if answer.status >= 500:
            raise Failed("broken", str(answer.status), again=True)
        self._hosts[name].misses = 0
        if answer.status in _REDIRECTS:
            self._redirect(target, answer, now)
        elif answer.status == 200:
            self._read(target, answer, now)
        elif answer.status == 304:
            self._store.count("unchanged")
        else:
            raise Failed("gone", str(answer.status))
        etag, modified = (
            answer.header("etag") or target.etag,
            answer.header("last-modified") or target.modified,
        )
        self._store.done(target, now + self._revisit_s, etag, modified)

    def _redirect(self, target: Target, answer: Answer, now: float) -> None:
        location = answer.header("location")
        url = normalised(location, target.url) if location else None
        if url is None or not self._allowed(url):
            raise Failed("off_list", (url or "")[:200])
        if target.hops >= self._limits.redirects:
            raise Failed("redirects")
        if trap(url, self._limits):
            raise Failed("trap", url[:200])
        self._store.add([url], target.depth, now, seed=target.seed, hops=target.hops + 1)

    def _read(self, target: Target, answer: Answer, now: float) -> None:
        try:
            with self._watch():
                page = page_of(answer, target.url, self._limits)
        except ValueError as error:  # of a parser
            raise Failed("corrupt", str(error)) from error
        new = True
        if page.refuses:
            self._store.count("refused")
        elif len(page.text) < self._limits.least_text_chars:
            self._store.count("empty")
        else:
            new = self._store.keep(target.url, page.text, now, self._settings.keep_pages)
            self._store.count("taken" if new else "duplicate")
        if (new or target.seed) and target.depth < self._settings.depth:
            links = [link for link in page.links if self._allowed(link)]
            good = [link for link in links if trap(link, self._limits) is None]
            refused = len(links) - len(good) + self._store.add(good, target.depth + 1, now)
            if refused:
                self._store.count("trap", refused)

    def _failed(self, name: str, target: Target, failed: Failed) -> None:
        now = time.time()
        self._store.count(failed.reason)
        logger.debug("page not taken", url=target.url, reason=failed.reason, detail=failed.detail)
        if not failed.again:
            self._store.done(target, now + self._revisit_s)
            return
        host = self._hosts[name]
        host.misses += 1
        if host.misses >= _MISSES:
            self._store.pause(name, now + self._limits.busy_s)
        self._store.again(target, now + self._limits.failed_s * 4**target.tries)

    def _leave_alone(self, name: str, answer: Answer) -> None:
        now = datetime.now(UTC)
        asked = answer.retry_after_s(now)
        wait = self._limits.busy_s if asked is None else min(asked, self._limits.longest_wait_s)
        self._store.pause(name, now.timestamp() + wait)

    def _allowed(self, url: str) -> bool:
        return authority(url) in self._settings.hosts

    # -- robots.txt --------------------------------------------------------------------------------------

    async def _robots(self, url: str) -> tuple[Rules | None, float]:
        """The rules that hold for an address, None where they can't be had; and until when that is so."""
        now = time.time()
        place = origin(url)
        held = self._rules.get(place)
        if held is None or held[1] <= now:
            kept = self._store.robots(place, now)
            if kept is None:
                kept = await self._ask_robots(place)
                self._store.keep_robots(place, *kept)
            held = Rules(kept[0]), kept[1]
            self._rules[place] = held
            self._hosts[host_of(url)].delay_s = self._delay_s(host_of(url))
        rules, until = held
        return (rules if rules.reachable else None), until

    def _delay_s(self, name: str) -> float:
        """The largest that is asked for, where a host has several ports or schemes."""
        asked = (rules.delay_s for place, (rules, _) in self._rules.items() if host_of(place) == name)
        return min(max(asked, default=0.0), self._limits.longest_wait_s)

    async def _ask_robots(self, place: str) -> tuple[Robots, float]:
        url = f"{place}/robots.txt"
        for _ in range(self._limits.robots_redirects + 1):
            name = host_of(url)
            try:
                async with self._turn(name):
                    answer = await self._fetcher.get(url, {}, self._limits.robots_bytes, (), cut=True)
            except Failed as failed:
                return self._without_robots(place, failed.reason)
            if answer.status in _REDIRECTS:
                onwards = normalised(answer.header("location"), url)
                if onwards is None or not self._allowed(onwards):
                    return self._without_robots(place, "off_list")
                url = onwards
                continue
            found = judged(answer.status)
            if found == "unreachable":
                if answer.status in _BUSY:
                    self._leave_alone(name, answer)
                return self._without_robots(place, str(answer.status))
            text = answer.body.decode("utf-8-sig", "replace") if found == "rules" else ""
            return Robots(found, text), time.time() + self._limits.robots_s
        return self._without_robots(place, "redirects")

    def _without_robots(self, place: str, detail: str) -> tuple[Robots, float]:
        logger.info("nothing is fetched without a robots.txt", place=place, detail=detail)
        self._store.count("robots_unreachable")
        return Robots("unreachable"), time.time() + self._limits.robots_again_s

    # -- turns -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """The right to fetch once from a host, when its gap is over."""
        host = self._hosts[name]
        async with host.turn:
            while (wait := host.ended + max(self._least_s, host.delay_s) - time.monotonic()) > 0:
                await anyio.sleep(wait)
            self._store.touch(name)
            async with self._at_once:
                try:
                    yield
                finally:
                    host.ended = time.monotonic()


def day_of(now: float) -> int:
    """Days since 1970, of UTC."""
    return int(now // DAY_S)
