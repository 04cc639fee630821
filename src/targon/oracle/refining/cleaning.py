"""What a passage's characters may be: visible ones in composed form, on one line. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from targon.oracle.refining.reasons import Reason

MOST_MARKS: Final = 2
"""Accents upon one letter that no composed character stands for."""

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Format characters and what else leaves no mark: zero-width, bidirectional, tags, variants, byte order marks."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
"""ASCII's, but for those that are white space."""

_HIDING = re.compile("[\x00-\x08\x0e-\x1b\x7f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e0fff]")
"""What prose has no use for, and others have: to speak to a terminal, to turn what is read around, to write unseen."""

_EMPHASIS = re.compile(r"(?<!\w)([_*`]{1,3})(?=[^\W_])([^_*`]*[^\s_*`])\1(?!\w)")
_REFERENCE = re.compile(r"\[(?:\d{1,3}|[a-z]|citation needed)\](?!\()")
"""Marks of a printer's, within sentences: ``_emphasis_``, and the number of a note."""

_CONTINUED = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0))
_MIS_READ = re.compile(
    f"[\u00c2-\u00df][{re.escape(_CONTINUED)}]"
    f"|[\u00e0-\u00ef][{re.escape(_CONTINUED)}]{{2}}"
    f"|[\u00f0-\u00f4][{re.escape(_CONTINUED)}]{{3}}"
)
"""UTF-8 that was read as Windows' Latin: a leading byte, and those that continue it."""
_BROKEN = re.compile(
    "[\x80-\x84\x86-\x9f\ufffd\ud800-\udfff]|\u201a\u00c4[\u00ec-\u00fa]"
    r"|[^\W\d_][\u221a\u0192\u2248\u2206]|[\u221a\u0192\u2248\u2206][\u0080-\uffff]"
)
"""Latin's control characters, what decoders put for what they can't read, halves of characters, UTF-8 as Mac's."""
_MIXED = re.compile(
    r"[A-Za-z\u00c0-\u024f][\u0370-\u03ff\u0400-\u058f]|[\u0370-\u03ff\u0400-\u058f][A-Za-z\u00c0-\u024f]"
    r"|[\u0370-\u03ff][\u0400-\u058f]|[\u0400-\u058f][\u0370-\u03ff]"
)


def clean(raw: str) -> str:
    """The text with its characters composed (NFC), on one line, without what can't be seen and a printer's marks."""
    text = _CONTROL.sub("", raw)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _IGNORABLE.sub("", text))
    text = _REFERENCE.sub("", _EMPHASIS.sub(r"\2", text))
    return " ".join(text.split())


def fault(raw: str, text: str) -> Reason | None:
    """What is wrong with the characters of a text.

    Args:
        raw: as it stands in its document; ``text``: the same, cleaned.
    """
    if _HIDING.search(raw):
        return Reason.HIDDEN
    if raw.isascii():
        return None
    if _BROKEN.search(raw) or any(_was_read_wrong(match[0]) for match in _MIS_READ.finditer(raw)):
        return Reason.MIS_DECODED
    if not text.isprintable() or _has_heaps_of_marks(text):
        return Reason.UNPRINTABLE
    return Reason.MIXED_SCRIPT if _MIXED.search(text) else None


def _was_read_wrong(run: str) -> bool:
    """Whether characters are the UTF-8 bytes of one that texts of Europe have; others stand so by chance."""
    try:
        meant = run.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return False
    return (
        meant <= "\u024f"
        or "\u0370" <= meant <= "\u04ff"
        or "\u2010" <= meant <= "\u2122"
        or meant >= "\ufe00"
    )


def _has_heaps_of_marks(text: str) -> bool:
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run > MOST_MARKS:
            return True
    return False
