"""``targon localnet``."""

from __future__ import annotations

from pathlib import Path

import anyio
from pydantic import Field
from rich.console import Console

from targon.cli.logging import configure_logging
from targon.cli.options import Options
from targon.localnet import CHEATS, CheatName, Settings, run


class LocalnetCommand(Options):
    """Run a whole network here: a chain, verifiers, honest provers and cheats, over real HTTP on loopback."""

    path: Path = Path(".localnet")
    """Folder for the network's chain, keys, logs and output; cleared at the next start."""
    intervals: int = Field(3, ge=0)
    """Ends when this many intervals have closed and every cheat that answers is convicted, or some intervals later; 0:
    runs until you stop it."""
    honest: int = Field(2, ge=0, le=64)
    """Honest provers in the reference's own number format (fp32)."""
    bf16: int = Field(1, ge=0, le=16)
    """Honest provers in bf16, on an engine of their own."""
    cheats: tuple[CheatName, ...] = CHEATS
    """Cheats to seat, by name; may be given several times, 'none' for none."""
    verifiers: int = Field(1, ge=1, le=4)
    """Verifiers, each with a log of its own."""
    oracle: bool = False
    """Run an oracle, which gives the verifiers their private inputs, as a process of its own."""
    light: bool = False
    """Run one more verifier, which has no engine and borrows the oracle's; runs an oracle as well."""
    block_seconds: float = Field(2.0, ge=0.25)
    """Seconds from one block to the next."""
    gateway_port: int = Field(0, ge=0, le=65_535)
    """Port of loopback at which the first verifier serves users; 0: any free one."""
    picture: Path | None = None
    """Write the last screen to this file, as SVG."""

    def run(self) -> int:
        configure_logging()
        settings = Settings(
            path=self.path,
            intervals=self.intervals,
            honest=self.honest,
            bf16=self.bf16,
            cheats=self.cheats,
            verifiers=self.verifiers,
            oracle=self.oracle,
            light=self.light,
            block_seconds=self.block_seconds,
            gateway_port=self.gateway_port,
        )
        return anyio.run(run, settings, Console(), self.picture)
