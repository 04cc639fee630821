"""The evidence about every prover, written down with the verdicts it follows from.

Evidence is taken in the order of the log. Each verdict's event holds what was observed and what the evidence
has become, so that a verifier that is started again goes on from its log, and others can compute it anew.
"""

from __future__ import annotations

import anyio
import structlog

from targon.ledger import Event, ProverConvicted, Verdict
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.verification import Calibration, EvidenceState, Judgement, advance, bets_of
from targon.verifier.journal import Journal

logger = structlog.get_logger(__name__)


class Book:
    """Writes verdicts, one at a time, each with its evidence."""

    def __init__(self, journal: Journal, calibration: Calibration | None) -> None:
        self._journal = journal
        self._digest = None if calibration is None else calibration.digest()
        self._lock = anyio.Lock()

    async def record(self, verdict: Verdict, judgement: Judgement | None, prover: Hotkey) -> list[Event]:
        """Append a verdict, and the conviction if there is one; returns what was appended."""
        async with self._lock:
            standings = self._journal.standings
            standing = standings.prover(prover)
            events: list[Event] = [verdict]
            if judgement is not None and self._digest is not None:
                before = None if standing is None else standing.evidence
                attempt = standings.attempt(verdict.attempt)
                block = standings.block if attempt is None else attempt.block
                events = with_evidence(verdict, judgement, before, self._digest, prover, block)
            await self._journal.append(*events)
        for event in events[1:]:
            logger.warning("prover_convicted", **event.model_dump(include={"prover", "tokens", "log_e"}))
        return events


def with_evidence(
    verdict: Verdict,
    judgement: Judgement,
    before: dict[str, object] | None,
    calibration: Digest,
    prover: Hotkey,
    block: Block,
) -> list[Event]:
    """A verdict with what the evidence took in and became; then the conviction, if it convicts.

    Args:
        before: the prover's evidence as the log holds it; None: none yet.
        calibration: digest of that by which the judgement was made.
    """
    observed, band = judgement.observations, judgement.band
    if observed is None or band is None:
        return [verdict]
    state = EvidenceState() if before is None else EvidenceState.from_json(before)
    after = advance(state, observed, bets_of(band))
    noted = verdict.model_copy(
        update={
            "tokens": observed.positions,
            "observed": observed.pack(),
            "evidence_after": after.to_json(),
        }
    )
    if after.convicted_at is None:
        return [noted]
    conviction = ProverConvicted(
        block=block,
        prover=prover,
        attempt=verdict.attempt,
        # within a completion the evidence may have stood higher than at its end
        log_e=max(after.log_peak, LOG_CONVICTION),
        tokens=after.convicted_at,
        completions=after.completions,
        calibration=calibration,
        looks_like=after.looks_like,
    )
    return [noted, conviction]
