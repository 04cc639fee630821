"""The one error of verifying an answer."""

from __future__ import annotations

from typing import Final

KEEP_IT: Final = (
    "don't use the answer; keep it with save() to show it to others, and ask again, or ask another verifier"
)


class NotVerified(Exception):
    """An answer, or a receipt, is not what it should be. Nothing of it is to be relied on.

    Attributes:
        what: what is wrong: ``messages[0].content``, ``text``, ``receipt signature``.
        got: what there was.
        expected: what there should have been.
        advice: what to do.
        choice: which of several answers; None: the only one, or all of them.
    """

    def __init__(
        self, what: str, got: object, expected: object, *, advice: str = KEEP_IT, choice: int | None = None
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.advice = advice
        self.choice = choice
        super().__init__(what, got, expected)

    def __str__(self) -> str:
        where = "" if self.choice is None else f"answer {self.choice}: "
        return f"{where}{self.what}: got {shown(self.got)}, expected {shown(self.expected)}"

    def diagnostics(self) -> str:
        """The whole story, in lines: what is wrong, what was got, what was expected, and what to do."""
        lines = [
            f"not verified: {self.what}",
            f"  got:      {shown(self.got)}",
            f"  expected: {shown(self.expected)}",
            f"  do:       {self.advice}",
        ]
        if self.choice is not None:
            lines.insert(1, f"  answer:   {self.choice}")
        return "\n".join(lines)


class Words(str):
    """A description, as against a value that is quoted."""

    __slots__ = ()


def shown(value: object) -> str:
    """A value on a terminal: quoted, in ASCII, and cut."""
    if isinstance(value, Words):
        return str(value)
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"
