"""The errors of the engines room.

EngineError
├── TaskRefused        the task cannot be served: the asker's doing
└── EngineUnavailable  the engine cannot be reached, or broke: nobody's fault but its own
    └── EngineBusy     it works, but too many tasks wait for it already
"""

from __future__ import annotations


class EngineError(Exception):
    """Anything that keeps an engine from doing a task."""


class TaskRefused(EngineError):
    """The task cannot be served: the prompt is too long, say, or the sampling unsupported."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, timed out, or failed."""


class EngineBusy(EngineUnavailable):
    """The engine works, but too many tasks wait for it already."""
