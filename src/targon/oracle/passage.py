"""One private input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of source text."""

    text: str
    """A few whole sentences on one line."""
    source: str
    """Where it was taken from: ``module:line``, say."""
    index: int
    """Its place in its source's list; what a caller remembers to not draw it again."""
