"""The crawler, in a process of its own: ``python -m targon.oracle.sources.live.process FILE``.

It takes no time from the role that draws, and a page that is made to break or to stall whoever reads it costs no more
than this process, which is started again without that page. It ends with its stdin. All it says goes to stderr.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog

from targon.oracle.errors import OracleError
from targon.oracle.sources.live.crawler import Crawler
from targon.oracle.sources.live.fetch import fetching
from targon.oracle.sources.live.limits import LIVE_LIMITS
from targon.oracle.sources.live.settings import read_settings, state_path
from targon.oracle.sources.live.store import Store, owned

_NICE: Final = 10
"""Steps by which others come first."""

log = structlog.get_logger("targon.oracle")


def main(arguments: Sequence[str] | None = None) -> int:
    """Crawl until stdin ends; returns the exit code."""
    options = _parser().parse_args(arguments)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    os.nice(_NICE)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = LIVE_LIMITS.memory_bytes if hard == resource.RLIM_INFINITY else min(hard, LIVE_LIMITS.memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    exit_code = 0
    try:
        anyio.run(_crawl_until_stopped, options.file, options.allow_private)
    except* OracleError as group:
        log.error("crawl cannot run", error="; ".join(map(str, _leaves(group))))
        exit_code = 1
    return exit_code


def _leaves(group: BaseExceptionGroup[OracleError]) -> Iterator[OracleError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _crawl_until_stopped(file: Path, allow_private: bool) -> None:
    settings = read_settings(file)
    path = state_path(file, settings)
    with owned(path), Store(path) as store:
        async with (
            fetching(settings.contact, allow_private=allow_private) as fetcher,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_stop_at_end_of_stdin, tasks.cancel_scope)
            await Crawler(settings, store, fetcher, watch=in_time, allow_private=allow_private).run()


@contextmanager
def in_time() -> Iterator[None]:
    """What takes longer than its CPU time ends the process, whatever it is at: parsers don't listen."""
    signal.setitimer(signal.ITIMER_VIRTUAL, LIVE_LIMITS.extract_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


async def _stop_at_end_of_stdin(scope: anyio.CancelScope) -> None:
    """The other end of stdin is the process that started us; it closes when that dies."""
    while True:
        await anyio.wait_readable(0)
        if not os.read(0, 4096):
            log.info("crawl stopping", reason="stdin closed")
            scope.cancel()
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m targon.oracle.sources.live.process", description="Crawl hosts, politely."
    )
    parser.add_argument("file", type=Path, help="settings, in TOML")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch from this machine and private networks too"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
