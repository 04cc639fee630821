"""What attackers do, as wrappers around a prover's engine, so that the network can be watched catching it.

Nothing here is ever imported by a running prover, verifier or oracle.
"""

from __future__ import annotations

from targon.redteam.cheats import Canned, Disguise, Truncated, Wrapper, WrongSeed

__all__ = ["Canned", "Disguise", "Truncated", "Wrapper", "WrongSeed"]
