"""Options that this version cannot honour: refused when they are given, rather than taken and forgotten."""

from __future__ import annotations

from targon.cli.errors import CommandError
from targon.cli.options import RoleOptions
from targon.cli.verifier_options import VerifierOptions


def refuse_unserved(options: RoleOptions) -> None:
    """Check that nothing is asked for that would not happen.

    Raises:
        CommandError: naming the option.
    """
    asked = {}
    if isinstance(options, VerifierOptions):
        asked["--database.*"] = options.database.given
    for flag, is_asked in asked.items():
        if is_asked:
            raise CommandError(f"{flag}: got it, expected it left away: this version cannot do it yet")
