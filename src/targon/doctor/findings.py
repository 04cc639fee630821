"""What a check says: what was found, whether it will do, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["good", "note", "bad"]
"""``good``: as it should be. ``note``: worth knowing, or not checked. ``bad``: the role wouldn't start, or not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    outcome: Outcome
    found: str
    advice: str = ""
    """What to do: an exact command or flag. Empty: nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found, and what it hands to the checks that need it.

    Attributes:
        value: None: nothing, and whoever needs it isn't run. A check may find something bad and still hand it on.
    """

    findings: tuple[Finding, ...]
    value: Any = None


def good(found: str, advice: str = "", *, value: object = None) -> Result:
    return Result((Finding("good", found, advice),), value)


def note(found: str, advice: str = "", *, value: object = None) -> Result:
    return Result((Finding("note", found, advice),), value)


def bad(found: str, advice: str, *, value: object = None) -> Result:
    return Result((Finding("bad", found, advice),), value)
