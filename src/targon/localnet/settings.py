"""What may be chosen of a local network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from targon.localnet.cast import CHEATS, CheatName
from targon.protocol.profile import DEMO, Profile

LIGHT = "verifier-light"
"""The name of the verifier without an engine."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults are the demonstration."""

    path: Path
    """Folder for the network's chain, keys, logs and output."""
    intervals: int = 3
    """Ends when this many intervals have closed and every cheat that answers is convicted, or some intervals later;
    0: runs until it is stopped."""
    honest: int = 2
    """Honest provers in the reference's own number format (fp32)."""
    bf16: int = 1
    """Honest provers in bf16, on an engine of their own."""
    cheats: tuple[CheatName, ...] = CHEATS
    verifiers: int = 1
    oracle: bool = False
    """An oracle gives the verifiers their private inputs."""
    light: bool = False
    """The oracle lends its engine to one more verifier, which has none."""
    sample_size: int = 10
    block_seconds: float = 2.0
    profile: Profile = DEMO
    tempo: int = 4
    """Blocks between two epochs of the chain."""
    min_tokens: int = 32
    max_tokens: int = 36
    """Bounds of a challenge's length."""
    netuid: int = 4
    gateway_port: int = 0
    """Where the first verifier serves users, on loopback; 0: any free port."""

    @property
    def has_oracle(self) -> bool:
        """Whether there is an oracle: it was asked for, or is needed."""
        return self.oracle or self.light

    @property
    def verifier_names(self) -> tuple[str, ...]:
        """Of all verifiers, the light one last."""
        names = tuple(f"verifier-{number + 1}" for number in range(self.verifiers))
        return (*names, LIGHT) if self.light else names
