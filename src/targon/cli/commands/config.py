"""``targon config show``: what a role's options are, and where each was given."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, CliUnknownArgs, get_subcommand

from targon.cli.catalog import RoleName, plain, written
from targon.cli.loading import Loaded, load
from targon.cli.options import Options


class ShowConfig(Options):
    """Show each option of a role: its name, its value, and whether a flag, the environment or a file gave it.

    Takes the role's own flags, too, and loads everything as the role does: 'targon config show verifier --config
    verifier.toml'.
    """

    role: CliPositionalArg[RoleName]
    """Whose options."""
    flags: CliUnknownArgs
    as_json: bool = Field(False, validation_alias="json")
    """Print them as JSON."""
    verbose: bool = False
    """Say what each is for."""

    def run(self) -> int:
        loaded = load(self.role, self.flags, os.environ)
        for warning in loaded.warnings:
            sys.stderr.write(f"targon: warning: {warning}\n")
        if self.as_json:
            sys.stdout.write(json.dumps(_as_json(loaded), indent=1, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(_as_text(loaded, verbose=self.verbose))
        return 0


class ConfigCommand(Options):
    """Show what a role's options are, and where each was given."""

    show: CliSubCommand[ShowConfig]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, ShowConfig)
        return command.run()


def _as_json(loaded: Loaded) -> list[dict[str, Any]]:
    return [
        {
            "name": option.name,
            "value": plain(value),
            "source": source,
            "default": plain(option.default),
            "meaning": option.meaning,
        }
        for option, value, source in loaded.rows()
    ]


def _as_text(loaded: Loaded, *, verbose: bool) -> str:
    rows = [(option, f"{option.name} = {written(value)}", source) for option, value, source in loaded.rows()]
    width = min(60, max(len(setting) for _, setting, _ in rows))
    lines = []
    for option, setting, source in rows:
        lines.append(f"{setting:<{width}}  {source}")
        if verbose:
            lines.append(f"    {option.meaning}")
    return "\n".join(lines) + "\n"
