"""A crawl of hosts on this machine. Times after which something is done again are short; those that a host has to
answer in are not, since a busy machine is no slow host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio

from targon.oracle.sources.live.crawler import Crawler
from targon.oracle.sources.live.fetch import fetching
from targon.oracle.sources.live.limits import LIVE_LIMITS, LiveLimits
from targon.oracle.sources.live.settings import LiveSettings
from targon.oracle.sources.live.store import Kept, Store
from tests.oracle.sites import Site

CONTACT = "crawl@example.org"
SHORT = replace(
    LIVE_LIMITS,
    poll_s=0.02,
    failed_s=0.05,
    busy_s=0.3,
    robots_again_s=0.4,
)
GAP_S = 0.05


def settings_for(*sites: Site, seeds: tuple[str, ...] = (), **others: object) -> LiveSettings:
    values = {
        "contact": CONTACT,
        "hosts": [each.authority for each in sites],
        "seeds": seeds or [each.url("/") for each in sites[:1]],
        "least_seconds": GAP_S,
        **others,
    }
    return LiveSettings.model_validate(values)


async def crawl(
    path: Path,
    settings: LiveSettings,
    until: Callable[[Store], bool],
    *,
    limits: LiveLimits = SHORT,
    allow_private: bool = True,
    more_s: float = 0.0,
) -> dict[str, int]:
    """Crawl until something holds, and so much longer: what was counted."""
    with Store(path, limits) as store:
        async with (
            fetching(settings.contact, allow_private=allow_private, limits=limits) as fetcher,
            anyio.create_task_group() as tasks,
        ):
            crawler = Crawler(settings, store, fetcher, allow_private=allow_private, limits=limits)
            tasks.start_soon(crawler.run)
            with anyio.fail_after(60):
                while not until(store):
                    await anyio.sleep(0.01)
            await anyio.sleep(more_s)
            tasks.cancel_scope.cancel()
        return {reason: count for reason, count in store.counts().items() if count}


def texts(path: Path) -> dict[str, str]:
    """What waits to be drawn, by address."""
    with Store(path) as store:
        return {kept.url: kept.text for kept in drawn(store)}


def drawn(store: Store) -> list[Kept]:
    """Each text that waits, drawn once."""
    found = [store.draw(number) for number, _ in store.waiting(0.0)]
    return [one[0] for one in found if one is not None]
