"""The one error of the command line: a sentence for the person at the keyboard, and exit code 1."""

from __future__ import annotations


class CommandError(Exception):
    """What was wrong, what was expected, and what to do."""
