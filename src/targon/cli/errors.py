"""The errors of the command line: sentences for the person at the keyboard.

CommandError        it could not be done (exit code 1)
└── WrongOptions    it was asked for wrongly (exit code 2)
"""

from __future__ import annotations

from collections.abc import Iterable


class CommandError(Exception):
    """What was wrong, what was expected, and what to do."""


class WrongOptions(CommandError):
    """Options that cannot be what was meant; a sentence for each of them."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))
