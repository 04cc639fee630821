"""``targon vectors``."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from targon.cli.options import Options


class VectorsCommand(Options):
    """Check, or write again, the conformance vectors: what every implementation must compute alike."""

    folder: CliPositionalArg[Path]
    """Folder of the vector files."""
    write: bool = False
    """Write the files instead of checking them."""

    def run(self) -> int:
        from targon.protocol.vectors.__main__ import main as vectors  # only this command needs them

        return vectors(["--write" if self.write else "--check", str(self.folder)])
