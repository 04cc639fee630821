"""The command line: parsing and wiring only. Each command is a model of its options and one function.

Nothing here decides anything that another room could.
"""

from __future__ import annotations

from targon.cli.main import main

__all__ = ["main"]
