"""How a verifier's provers stand, in numbers: a line in the log output every so many blocks.

All of it is read off the standings, so that whoever folds the log gets the same numbers.
"""

from __future__ import annotations

from targon.ledger import Standings
from targon.protocol.primitives import Block


class StatisticsSchedule:
    """When statistics are due: in the first block that is seen, and then each time so many have passed."""

    def __init__(self, interval_blocks: int) -> None:
        self._interval = interval_blocks
        self._last: Block | None = None

    def due(self, block: Block) -> bool:
        """Whether they are due in this block; asked once for each block that is handled."""
        if self._last is not None and block - self._last < self._interval:
            return False
        self._last = block
        return True


def statistics(standings: Standings) -> dict[str, float]:
    """How provers that hold a UID stand, and where the log is. Rates and means are left out where nothing is known.

    ``attempts``, ``passed`` and ``inconclusive`` count since each prover's counters began.
    """
    provers = [prover for prover in standings.provers() if prover.uid is not None]
    attempts = sum(prover.attempts for prover in provers)
    passed = sum(prover.successes for prover in provers)
    scores = [prover.score for prover in provers]
    found: dict[str, float] = {
        "block": standings.block,
        "records": standings.head.seq + 1,
        "blocks_skipped": standings.blocks_skipped,
        "provers": len(provers),
        "on_probation": sum(prover.on_probation for prover in provers),
        "convictions": sum(prover.convictions for prover in standings.provers()),
        "attempts": attempts,
        "passed": passed,
        "inconclusive": sum(prover.inconclusive for prover in provers),
        "open_attempts": len(standings.open_attempts),
        "under_audit": len(standings.under_audit),
        "verified_tokens": sum(prover.verified_tokens for prover in provers),
    }
    if standings.audits_wait_since is not None:
        found["audit_age_blocks"] = max(0, standings.block - standings.audits_wait_since)
    if attempts:
        found["success_rate"] = round(passed / attempts, 4)
    if scores:
        found |= {"mean_score": round(_mean(scores), 6), "best_score": round(max(scores), 6)}
    if standings.weights_block is not None:
        found["blocks_since_weights"] = max(0, standings.block - standings.weights_block)
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
