"""A source's passages, each given once: documents are drawn, cut, cleaned, judged, and remembered as taken.

Which passages come is settled by the source and the random numbers that it draws with, and by what was taken before:
the same three give the same passages.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from random import Random
from typing import Final

from targon.oracle.errors import SourceUseless
from targon.oracle.passage import Passage
from targon.oracle.ports import Document, Source
from targon.oracle.refining import Counts, Reason, Refiner, Taken, likeness
from targon.protocol.primitives import Digest
from targon.protocol.private_inputs import MAX_SOURCE_CHARS

MOST_REFUSED: Final = 20_000
"""Draws in a row without a passage, after which a source is said to be useless: some seconds. Of a source of which
one draw in a thousand gives a passage, it is once in 500 million."""

_USER_INFO = re.compile(r"(?<=://)[^/\s?#]*@")


class RefinedSupply:
    """The port ``Supply``, from a ``Source``.

    Args:
        taken: what was taken before; this closes it.
        random: where draws come from; ``random.SystemRandom`` in service.
        most_refused: draws in a row without a passage that are borne.
    """

    def __init__(
        self,
        source: Source,
        taken: Taken,
        random: Random,
        *,
        refiner: Refiner | None = None,
        most_refused: int = MOST_REFUSED,
    ) -> None:
        self.counts = Counts()
        self._source = source
        self._refiner = refiner or Refiner()
        self._taken = taken
        self._random = random
        self._most_refused = most_refused
        self._documents: Iterator[Document] | None = None
        self._exhausted = False
        self._alone = threading.Lock()

    def close(self) -> None:
        """End the source with what it runs, and let another process own what was taken."""
        with self._alone:
            if isinstance(self._documents, Generator):
                self._documents.close()  # and the files that it reads
            self._source.close()
            self._taken.close()

    @property
    def source_counts(self) -> Mapping[str, int]:
        """What the source came to beside texts, by name."""
        return self._source.counts

    def manifest(self) -> Digest:
        """Names the source's body of text."""
        return self._source.manifest()

    def take(self, count: int) -> Sequence[Passage]:
        """So many passages; fewer where the source is exhausted, or gives none in ``most_refused`` draws any more.

        They are remembered as taken, on disk, before this returns; where it fails, none is.

        Raises:
            SourceUseless: if there was none at all in as many draws.
            StoreUnavailable: if what was taken can't be read or written.
        """
        with self._alone:
            before = self.counts.refused
            try:
                with self._taken.batch():
                    passages = self._gather(count)
            except BaseException:
                self._documents = None  # an iterator that failed gives no more
                raise
            self.counts.taken += len(passages)
        if passages or count < 1 or self._exhausted:
            return passages
        raise SourceUseless(self._source.name, self.counts.since(before))

    def _gather(self, count: int) -> list[Passage]:
        if self._documents is None:
            self._documents = self._source.documents(self._random)
        self._exhausted = False
        passages: list[Passage] = []
        refused = 0
        while len(passages) < count and refused < self._most_refused:
            document = next(self._documents, None)
            if document is None:
                self._exhausted = True
                self._documents = None  # a live source may have more later
                break
            found = self._passage(document)
            if isinstance(found, Reason):
                self.counts.refuse(found)
                refused += 1
            else:
                passages.append(found)
                refused = 0
        return passages

    def _passage(self, document: Document) -> Passage | Reason:
        found = self._refiner.refine(document)
        if isinstance(found, Reason):
            return found
        number = self._taken.take(likeness(found.text))
        if isinstance(number, Reason):
            return number
        return Passage(found.text, _named(document.source, found.start), number)


def _named(source: str, start: int) -> str:
    """Where a passage stands: its document, without control characters and passwords, and the character there."""
    place = f" at {start}"
    plain = "".join(character if character.isprintable() else "?" for character in _USER_INFO.sub("", source))
    return plain[: MAX_SOURCE_CHARS - len(place)] + place
