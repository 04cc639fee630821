"""What an audit found, as values: for people, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from targon.audit.faults import Faults
from targon.audit.oracles import OracleReport
from targon.audit.tallies import Counts, Tally
from targon.ledger import ProverStanding
from targon.protocol.primitives import Block, Digest, Hotkey, Interval, Uid


@dataclass(slots=True)
class Report:
    """Everything that was computed again, and every fault. It is exact if there is none."""

    faults: Faults = field(default_factory=Faults)
    verifier: Hotkey | None = None
    netuid: int | None = None
    genesis: Digest | None = None
    segments: int = 0
    """Segments whose manifests are good, and in a row."""
    records: int = 0
    """Records that were folded."""
    head: Digest | None = None
    """Hash of the last of them."""
    block: Block | None = None
    """The newest block that they speak of."""
    interval: Interval | None = None
    """The interval that is open after them; None between two."""
    provers: tuple[ProverStanding, ...] = ()
    weights: dict[Uid, int] = field(default_factory=dict)
    """The newest that were set."""
    tallies: dict[Hotkey, Tally] = field(default_factory=dict)
    draws: Counts = field(default_factory=Counts)
    open_attempts: int = 0
    """Attempts without an outcome at the end."""
    open_by_prover: dict[Hotkey, int] = field(default_factory=dict)
    awaiting_verdict: int = 0
    """Audited answers without a verdict at the end."""
    awaiting_by_prover: dict[Hotkey, int] = field(default_factory=dict)
    weights_checked: int = 0
    commits_checked: int = 0
    commits_unchecked: int = 0
    evidence_checked: int = 0
    evidence_unchecked: int = 0
    calibrations_missing: tuple[Digest, ...] = ()
    signatures_checked: int = 0
    """Receipts in the log whose provers' signatures were checked."""
    receipts_checked: int = 0
    """Countersigned receipts that were given, and looked up."""
    oracles: OracleReport = field(default_factory=OracleReport)
    """What the log says of oracles."""
    chain: list[str] = field(default_factory=list)
    """What was compared with the chain, in words."""
    reverified: list[dict[str, Any]] = field(default_factory=list)
    """Answers that were judged again, by one's own engine."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether nothing is wrong."""
        return self.faults.total == 0

    def as_json(self) -> dict[str, Any]:
        return {
            "exact": self.exact,
            "verifier": self.verifier,
            "netuid": self.netuid,
            "genesis": self.genesis,
            "segments": self.segments,
            "records": self.records,
            "head": self.head,
            "block": self.block,
            "interval": self.interval,
            "faults": [fault.as_json() for fault in self.faults.kept],
            "fault_counts": dict(self.faults.counts),
            "weights": {str(uid): weight for uid, weight in self.weights.items()},
            "provers": [
                {
                    "uid": prover.uid,
                    "hotkey": prover.hotkey,
                    "tier": prover.tier.label,
                    "score": prover.score,
                    "convictions": prover.convictions,
                    "open": self.open_by_prover.get(prover.hotkey, 0),
                    "awaiting_verdict": self.awaiting_by_prover.get(prover.hotkey, 0),
                }
                | asdict(self.tallies.get(prover.hotkey, Tally()))
                for prover in self.provers
            ],
            "draws": asdict(self.draws),
            "open_attempts": self.open_attempts,
            "awaiting_verdict": self.awaiting_verdict,
            "weights_checked": self.weights_checked,
            "commits": {"checked": self.commits_checked, "unchecked": self.commits_unchecked},
            "evidence": {
                "checked": self.evidence_checked,
                "unchecked": self.evidence_unchecked,
                "calibrations_missing": list(self.calibrations_missing),
            },
            "signatures_checked": self.signatures_checked,
            "receipts_checked": self.receipts_checked,
            "oracles": self.oracles.as_json(),
            "chain": self.chain,
            "reverified": self.reverified,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }
