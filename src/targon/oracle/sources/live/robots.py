"""robots.txt, as RFC 9309 says: what was found where it should be, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

from targon.oracle.errors import ToolMissing

PRODUCT: Final = "targon"
"""The name by which a robots.txt speaks to us."""

Found = Literal["rules", "none", "unreachable"]
"""A file with rules; no such file, so that all is allowed; nothing that can be relied on, so that nothing is."""


@dataclass(frozen=True, slots=True)
class Robots:
    """What a robots.txt is, as it is kept."""

    found: Found
    text: str = ""


def judged(status: int) -> Found:
    """What an answer's status says, once redirects are followed.

    429 is among the 4xx that mean "no such file", but a host that is too busy to say what it allows is left alone.
    """
    if status == 200:
        return "rules"
    if 400 <= status < 500 and status != 429:
        return "none"
    return "unreachable"


class Rules:
    """A robots.txt, read.

    Raises:
        ToolMissing: without protego.
    """

    def __init__(self, robots: Robots) -> None:
        try:
            from protego import Protego
        except ImportError as error:
            raise ToolMissing("protego", "to read robots.txt") from error
        self._found = robots.found
        self._rules = Protego.parse(robots.text if robots.found == "rules" else "")

    @property
    def reachable(self) -> bool:
        """Whether there is anything to rely on; else nothing is allowed."""
        return self._found != "unreachable"

    def allow(self, url: str) -> bool:
        """Whether an address may be fetched."""
        return self.reachable and self._rules.can_fetch(url, PRODUCT)

    @property
    def delay_s(self) -> float:
        """Seconds that have to lie between two fetches; 0 where none are asked for."""
        rate = self._rules.request_rate(PRODUCT)
        asked = self._rules.crawl_delay(PRODUCT) or 0.0
        if rate is not None and rate.requests > 0:
            asked = max(asked, rate.seconds / rate.requests)
        return asked if isfinite(asked) and asked > 0 else 0.0
