"""The words for what came of an attempt."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["pass", "fail", "inconclusive"]
"""``fail`` is the prover's fault; ``inconclusive`` is ours or the network's, and counts for nothing."""

Purpose = Literal["challenge", "inference"]
"""Why a verifier asked. It never stands on the wire."""
