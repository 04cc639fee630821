"""What could not be read: counted by reason, and said once for each file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

logger = structlog.get_logger("targon.oracle")

REASONS: Final = {
    "unreadable": "the file or address can't be read",
    "shrunk": "the file is shorter than it was",
    "unknown_format": "the file's name has no ending that is known",
    "corrupt": "compressed data, a table or a record is broken",
    "truncated": "it ends before it is complete",
    "bomb": "it unpacks to far more than text ever does",
    "too_long": "a line, value or record is over its limit",
    "too_deep": "a page or a line of JSON is nested too deeply, or has too many parts",
    "not_json": "a line is no JSON object",
    "no_text": "a record has no text, or not under a known name",
    "not_unicode": "the bytes are no text in the encoding that they should be in",
    "too_many": "there are more files or addresses than are looked at",
    "dropped": "a file that gave only failures, and is no longer drawn from",
}
"""The names under which skipped things are counted, and what each means."""
MOST_SAID: Final = 1_000
"""Files that are named."""
MOST_DETAIL: Final = 300
"""Characters: some of it can come from the file."""


class Unreadable(Exception):
    """Something can't be read. It is caught within the sources.

    Args:
        reason: one of ``REASONS``.
        at: where, as a position in its file.
    """

    def __init__(self, reason: str, detail: str = "", at: int = 0) -> None:
        self.reason = reason
        self.detail = detail
        self.at = at
        super().__init__(f"{reason} {detail}".strip())


class Skipped:
    """Counts of one source. They may be read in any thread while one thread counts."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(REASONS, 0)
        self._said: set[str] = set()

    @property
    def counts(self) -> Mapping[str, int]:
        """How much was skipped so far, for each of ``REASONS``."""
        return dict(self._counts)

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def note(self, reason: str, file: str, detail: str = "", *, say: bool = True) -> None:
        """Count one, and say it if it is the first of its file."""
        self._counts[reason] += 1
        if say and file not in self._said and len(self._said) < MOST_SAID:
            self._said.add(file)
            logger.warning(
                "text skipped",
                file=plain(file),
                reason=reason,
                meaning=REASONS[reason],
                detail=plain(detail[:MOST_DETAIL]),
            )
            if len(self._said) == MOST_SAID:
                logger.warning("more files are skipped than are named here", named=MOST_SAID)


def plain(text: str) -> str:
    """A text that a file may have written, as it can stand on a terminal: one line, without control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
