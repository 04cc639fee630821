"""Releases are tags: ``v1.2.3``, and before it perhaps ``v1.2.3-beta.1`` and ``v1.2.3-rc.1``.

Order is that of Semantic Versioning 2.0.0, section 11. Channel ``stable`` has the first form alone; channel ``beta``
has all of them, so that who follows it gets a release as soon as its last candidate is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Channel = Literal["stable", "beta"]

_NUMBER = r"(0|[1-9]\d{0,8})"
_TAG = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(beta|rc)\.{_NUMBER})?", re.ASCII)
_STAGES = ("beta", "rc", "")


@dataclass(frozen=True, order=True)
class Version:
    """A version; greater is newer."""

    major: int
    minor: int
    patch: int
    stage: int = 2
    """0: beta, 1: release candidate, 2: release."""
    number: int = 0
    """Of the beta or candidate."""

    @property
    def is_release(self) -> bool:
        return self.stage == 2

    def is_in(self, channel: Channel) -> bool:
        return self.is_release or channel == "beta"

    def __str__(self) -> str:
        base = f"{self.major}.{self.minor}.{self.patch}"
        return base if self.is_release else f"{base}-{_STAGES[self.stage]}.{self.number}"


def parse_tag(tag: str) -> Version | None:
    """The version that a tag names; None: it is no release's tag."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    major, minor, patch, stage, number = match.groups()
    return Version(int(major), int(minor), int(patch), _STAGES.index(stage or ""), int(number or 0))
