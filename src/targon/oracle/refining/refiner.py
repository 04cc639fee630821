"""From a document to its passage, or to the reason why it gives none."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

from targon.oracle.passage import MAX_CHARS, MIN_CHARS
from targon.oracle.ports import Document
from targon.oracle.refining.cleaning import clean, fault
from targon.oracle.refining.cut import Cut, cut
from targon.oracle.refining.injection import injection
from targon.oracle.refining.language import ENGLISH, LanguageFilter
from targon.oracle.refining.personal import personal
from targon.oracle.refining.quality import quality
from targon.oracle.refining.reasons import Reason


class Refiner:
    """Cuts, cleans and judges. It holds no state: equal documents give equal passages.

    Args:
        languages: codes as in ISO 639-1 of the languages that passages may be in; none: any will do, none is asked.

    Raises:
        ToolMissing: if languages are named, and resiliparse isn't installed.
        UnknownLanguage: if there is no profile of one.
    """

    def __init__(self, languages: Collection[str] = (ENGLISH,)) -> None:
        self._spoken = LanguageFilter(languages) if languages else None
        self._english = set(languages) == {ENGLISH}

    def refine(self, document: Document) -> Cut | Reason:
        """The passage that a document gives, its text clean; the reason where it gives none.

        Raises:
            ValueError: if the place that was drawn isn't in [0, 1).
        """
        found = cut(document.text, document.at)
        if isinstance(found, Reason):
            return found
        text = clean(found.text)
        return self._fault(found.text, text) or Cut(text, found.start)

    def judge(self, raw: str) -> str | Reason:
        """A text, clean, if it is fit to be a private input; the reason where it isn't."""
        text = clean(raw)
        return self._fault(raw, text) or text

    def _fault(self, raw: str, text: str) -> Reason | None:
        if found := fault(raw, text):
            return found
        if not MIN_CHARS <= len(text) <= MAX_CHARS:
            return Reason.LENGTH
        folded = unicodedata.normalize("NFKC", text)
        if found := injection(folded.lower()) or personal(folded) or quality(text, english=self._english):
            return found
        if self._spoken is not None and text not in self._spoken:
            return Reason.LANGUAGE
        return None
