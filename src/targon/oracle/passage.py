"""One private input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_CHARS: Final = 120
MAX_CHARS: Final = 240
"""Length of a passage: 24 to 55 tokens of the default model for nine in ten of them, before a question and a template
are added. Who reads a prompt pays for its length."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of source text."""

    text: str
    """A few whole sentences on one line."""
    source: str
    """Where it was taken from: ``module:line``, say."""
    index: int
    """Its place in its source's list; what a caller remembers to not draw it again."""
