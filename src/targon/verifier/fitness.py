"""Whether a text that somebody gave can be asked about. Pure.

An honest oracle looks at its passages more closely than this. What is refused here would harm whoever asks: characters
that no user types tell provers that they are challenged, and a chat template's tokens end the turn that they stand in.
"""

from __future__ import annotations

from typing import Final


class Unfit(Exception):
    """A text can't be asked about; why, in words that don't quote it."""


_WHITE: Final = frozenset("\n\t")
_TEMPLATE: Final = ("<|", "|>")


def check_fit(text: str) -> None:
    """Check that a text can be asked about.

    Raises:
        Unfit: if it can't.
    """
    if not any(map(str.isalnum, text)):
        raise Unfit("there is no letter in it")
    place = next((at for at, one in enumerate(text) if not (one.isprintable() or one in _WHITE)), None)
    if place is not None:
        raise Unfit(f"character {place} is U+{ord(text[place]):04X}, which can't be seen")
    if any(mark in text for mark in _TEMPLATE):
        raise Unfit("a token of a chat template is in it")
