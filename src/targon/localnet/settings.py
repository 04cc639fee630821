"""What may be chosen of a local network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from targon.localnet.cast import CHEATS, CheatName
from targon.protocol.profile import DEMO, Profile


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
