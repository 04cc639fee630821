"""How closely each prover's inferences are looked at, by its standing."""

from __future__ import annotations

from typing import Any

from targon.ledger import ProverStanding
from targon.protocol.audits import audit_rate
from targon.protocol.primitives import Hotkey
from targon.verification import EvidenceState


class AuditRates:
    """The rates of all provers; what is dear to compute is kept until the evidence changes."""

    def __init__(self) -> None:
        self._known: dict[Hotkey, tuple[dict[str, Any], float]] = {}

    def of(self, standing: ProverStanding) -> float:
        """The share of a prover's inferences that are audited, in (0, 1]."""
        return audit_rate(standing.tier, on_probation=standing.on_probation, log_e=self._log_e(standing))

    def _log_e(self, standing: ProverStanding) -> float:
        evidence = standing.evidence
        if evidence is None:
            return 0.0
        known = self._known.get(standing.hotkey)
        if known is None or known[0] is not evidence:
            known = self._known[standing.hotkey] = evidence, EvidenceState.from_json(evidence).log_e
        return known[1]
