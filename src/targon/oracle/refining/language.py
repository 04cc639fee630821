"""Which language a text is in, by the frequencies of its letters in a row (resiliparse's profiles of Wikipedia)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, cast

from targon.oracle.errors import ToolMissing, UnknownLanguage

ENGLISH: Final = "en"

NEAREST: Final = 3
WITHIN: Final = 1.05
"""A text is taken for a language that is among so many nearest ones and at most so much farther than the nearest: of
sentences this short, the nearest alone is a cousin's for one in twenty to thirty."""


class LanguageFilter:
    """Says whether a text is in one of some languages.

    Args:
        languages: codes as in ISO 639-1.

    Raises:
        ToolMissing: if resiliparse isn't installed.
        UnknownLanguage: if there is no profile of one.
    """

    def __init__(self, languages: Collection[str]) -> None:
        try:
            from resiliparse.parse.lang import detect_fast, supported_langs
        except ImportError as error:
            raise ToolMissing("resiliparse", "to tell languages apart") from error
        known = supported_langs()
        for language in languages:
            if language not in known:
                raise UnknownLanguage(language, known)
        self._detect = detect_fast
        self._languages = frozenset(languages)

    def __contains__(self, text: str) -> bool:
        found = cast("list[tuple[str, int]]", self._detect(text, n_results=NEAREST))
        return any(language in self._languages and rank <= WITHIN * found[0][1] for language, rank in found)
