"""What a verifier publishes beside its log: the answers to its own work that it keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import structlog

from targon.verification import SignedAnswer
from targon.verifier.retained import ContentUnreadable, Retained

logger = structlog.get_logger(__name__)


class OwnWork:
    """The answers to a verifier's own work, from its data folder; a user's are never among them.

    Those that can't be read are not published: a log goes out without them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lines(self, first: int, last: int) -> Iterator[bytes]:
        """See :class:`targon.audit.Transcripts`."""
        try:
            with closing(Retained.open(self._folder, read_only=True)) as retained:
                for kept in retained.own(first, last):
                    yield SignedAnswer(request=kept.request, response=kept.response).to_bytes()
        except (ContentUnreadable, sqlite3.Error) as error:
            logger.info("answers_not_published", first=first, last=last, reason=str(error))
