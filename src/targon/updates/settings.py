"""What an operator says about updates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from targon.updates.versions import Channel


@dataclass(frozen=True)
class UpdateDeadlines:
    """Seconds that each step may take."""

    git_s: float = 300.0
    drain_s: float = 300.0
    """To finish what runs; what doesn't end by then is broken off."""
    set_up_s: float = 3600.0
    """The first set-up of a version can download gigabytes."""
    check_s: float = 120.0
    """Each check of the new version, before it is started."""
    healthy_s: float = 900.0
    """From the start of a new version until it is healthy; models take minutes to load."""


@dataclass(frozen=True)
class UpdateSettings:
    """Updates are off unless asked for."""

    enabled: bool = False
    remote: str = "origin"
    """Name of the git remote that has the releases."""
    channel: Channel = "stable"
    interval_s: float = 3600.0
    """Between two looks, give or take a tenth."""
    allowed_signers: Path | None = None
    """Keys that may sign releases, in the form of ssh-keygen's ALLOWED SIGNERS."""
    pin: str = ""
    """Object id of the one commit, or tag, to be at, whoever signed it."""
    restart: Literal["exec", "exit"] = "exec"
    """How the new version is started: by becoming it, or by ending with status 75 to be started again."""
    most_starts: int = 3
    """Starts in which a new version must become healthy."""
    deadlines: UpdateDeadlines = field(default_factory=UpdateDeadlines)
