"""What can go wrong with private inputs.

OracleError
├── NoText               a source holds too little text to draw from
├── PassagesExhausted    every passage of a source was used
├── SourceUseless        draw after draw gave no passage
├── StoreUnavailable     what was taken can't be remembered
├── ToolMissing          a library of the extra `oracle` isn't installed
├── UnknownLanguage      no profile of it is known
├── SourceError          a body of text can't be opened
│   ├── UnknownSource    no source has that name
│   └── NothingReadable  it is there, and nothing in it could be read
├── Damaged              a file of the oracle's own isn't what it wrote
├── GivenBefore          a text was given before, by a deal that the chain has replaced
├── WriterFailed         the process that writes periods can't do what it was asked
├── WriterEnded          the process that writes periods ended, or gave no answer
├── FolderTaken          another process works with the oracle's folder
├── CannotStart          a part that a running oracle needs is not there
└── BadSettings          settings that can't be meant
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class OracleError(Exception):
    """No private input can be had. It is the asker's trouble, never a prover's."""


class NoText(OracleError):
    """A source holds too little text to draw from."""

    def __init__(self, place: str, found: int, expected: int) -> None:
        self.place = place
        self.found = found
        self.expected = expected
        super().__init__(
            f"{place}: got {found} passages of prose, expected at least {expected}; this Python seems to be "
            "installed without its library's .py files: use one that has them"
        )


class PassagesExhausted(OracleError):
    """Every passage of a source was used."""

    def __init__(self, passages: int) -> None:
        self.passages = passages
        super().__init__(
            f"all {passages} passages were used; forget them to begin a new round, or use another source"
        )


class SourceUseless(OracleError):
    """Draw after draw gave no passage."""

    def __init__(self, source: str, refused: Mapping[str, int]) -> None:
        self.source = source
        self.refused = dict(refused)
        often = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
        super().__init__(
            f"{source}: got no passage in {sum(refused.values()):,} draws, expected one in some; refused: "
            + ", ".join(f"{reason} {count:,}" for reason, count in often)
            + ". Where most were taken before, add text; else this is no prose in a language that is asked for"
        )


class StoreUnavailable(OracleError):
    """What was taken can't be remembered, so that nothing may be taken."""


class ToolMissing(OracleError):
    """A library of the extra ``oracle`` isn't installed."""

    def __init__(self, library: str, purpose: str) -> None:
        self.library = library
        super().__init__(
            f"{library} isn't installed, which is needed {purpose}: pip install 'targon[oracle]'"
        )


class UnknownLanguage(OracleError):
    """No profile of a language is known."""

    def __init__(self, language: str, known: Collection[str]) -> None:
        self.language = language
        super().__init__(f"got the language {language!r}, expected some of: {', '.join(sorted(known))}")


class SourceError(OracleError):
    """A body of text can't be opened."""


class UnknownSource(SourceError):
    """No source has that name."""

    def __init__(self, spec: str, expected: str) -> None:
        self.spec = spec
        super().__init__(f"got the source {spec!r}, expected {expected}")


class NothingReadable(SourceError):
    """A body of text is there, and nothing in it could be read."""

    def __init__(self, place: str, found: str, expected: str, skipped: Mapping[str, int]) -> None:
        self.place = place
        self.skipped = {reason: count for reason, count in skipped.items() if count}
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        super().__init__(
            f"{place}: found {found}, expected {expected}" + (f"; skipped: {reasons}" if reasons else "")
        )


class Damaged(OracleError):
    """A file of the oracle's own isn't what it wrote."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file}: {what}")


class GivenBefore(OracleError):
    """A text was given before, by a deal that the chain has replaced."""

    def __init__(self, leaf: int) -> None:
        super().__init__(
            f"the text of leaf {leaf} was given before the chain replaced the period's first block"
        )


class WriterFailed(OracleError):
    """The process that writes periods can't do what it was asked.

    Attributes:
        exhausted: whether its source has nothing more to give.
    """

    def __init__(self, why: str, *, exhausted: bool = False) -> None:
        self.exhausted = exhausted
        super().__init__(why)


class WriterEnded(OracleError):
    """The process that writes periods ended, or gave no answer. It is started again when it is needed."""


class FolderTaken(OracleError):
    """Another process works with the oracle's folder."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"{folder}: another oracle works with it; stop that one, or give this one a --data.path of its own"
        )


class CannotStart(OracleError):
    """A part that the oracle needs is not there; the message says which, and what to do."""


class BadSettings(OracleError):
    """Settings that can't be meant."""
