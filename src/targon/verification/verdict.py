"""What a method says of one completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from targon.protocol.messages import Dialect
from targon.protocol.verdicts import Outcome

NATIVE: Final = "native work: served and shown, earns nothing"
"""How every reason begins that speaks of native work."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome, similarity, and why."""

    outcome: Outcome
    method: str
    """What decided: ``structure``, ``exact``, …"""
    score: float
    """Similarity, 0 to 1."""
    reason: str
    """One sentence for the prover's operator: what was got and what was expected."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """The numbers behind the reason: a small JSON object."""
    tokens: int = 0
    """How many of the completion's tokens this verdict speaks of."""


def failed(method: str, reason: str, score: float = 0.0, tokens: int = 0, **evidence: Any) -> Verdict:  # noqa: ANN401
    """A failure that is the prover's fault."""
    return Verdict("fail", method, score, reason, evidence, tokens)


def inconclusive(method: str, reason: str, **evidence: Any) -> Verdict:  # noqa: ANN401 - JSON
    """No finding, through no fault of the prover's."""
    return Verdict("inconclusive", method, 0.0, reason, evidence)


def reason_about(dialect: Dialect, reason: str) -> str:
    """A reason, in words that say so where the work is native."""
    return f"{NATIVE}; {reason}" if dialect == "native" else reason
