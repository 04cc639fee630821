"""A whole network on one machine, to see it work: real processes, real HTTP on loopback, a real model.

This room starts, watches and sums up. It decides nothing: every number that it shows comes from the
verifier's log, from its metrics or from the chain.
"""

from __future__ import annotations

from targon.localnet.cast import CHEAT_WORDS, CHEATS, CheatName
from targon.localnet.network import FolderInUse
from targon.localnet.processes import ProcessDied
from targon.localnet.runner import LocalnetFailed, run
from targon.localnet.settings import Settings

__all__ = [
    "CHEATS",
    "CHEAT_WORDS",
    "CheatName",
    "FolderInUse",
    "LocalnetFailed",
    "ProcessDied",
    "Settings",
    "run",
]
