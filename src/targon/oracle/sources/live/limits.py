"""What bounds a live crawl, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Times in seconds, sizes in bytes unless said otherwise."""

    least_gap_s: float = 1.0
    """Between two fetches of a host, whatever the settings say; where private addresses are allowed, they decide."""
    connect_s: float = 10.0
    idle_s: float = 10.0
    """Without a byte."""
    request_s: float = 30.0
    """One request, to its last byte."""
    body_bytes: int = 2_000_000
    """Of an answer, as it comes and unpacked."""
    robots_bytes: int = 512_000
    """Of a robots.txt: RFC 9309 asks for 500 KiB; what comes after is left out."""
    robots_s: float = DAY_S
    """For which a robots.txt is believed."""
    robots_again_s: float = 3_600.0
    """Until one that couldn't be had is asked for again."""
    robots_redirects: int = 5
    longest_wait_s: float = DAY_S
    """That a host's ``Retry-After`` or ``Crawl-delay`` can ask for."""
    failed_s: float = 300.0
    """Until a page that failed is tried again; four times as long each time after."""
    busy_s: float = 600.0
    """For which a host is left alone that said it is busy, and not for how long."""
    tries: int = 3
    redirects: int = 5
    """One after the other; each is a fetch of its own, when its host is due."""
    at_once: int = 8
    """Requests, each to another host."""
    poll_s: float = 1.0
    """Between two looks for something new to fetch."""
    extract_s: int = 20
    """CPU seconds for a page's text. A page that takes longer ends the crawler, which is started again without it."""
    memory_bytes: int = 2 << 30
    """Of the crawler's address space."""
    links: int = 300
    """Of one page."""
    url_chars: int = 500
    path_parts: int = 8
    query_parts: int = 3
    same_part: int = 2
    """Times that a part of a path may occur in it."""
    same_shape: int = 300
    """Addresses of a host that differ in digits alone, as a calendar's do."""
    urls_per_host: int = 5_000
    """Known at a time, fetched or not."""
    seen: int = 1_000_000
    """Digests of texts that are remembered."""
    text_chars: int = 200_000
    """Of a page's text; what comes after is left out."""
    least_text_chars: int = 200
    """Less is hardly an article."""
    kept_chars: int = 100_000_000
    """Of all texts that wait to be drawn; the oldest make room."""
    chars_a_draw: int = 600
    """A page is used up after as many draws as it has times this many characters."""


LIVE_LIMITS: Final = LiveLimits()
