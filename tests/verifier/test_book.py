"""What is written down with a verdict: the evidence, and the conviction it may lead to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from targon.ledger import ProverConvicted, Verdict
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.primitives import Block, Digest, Hotkey
from targon.verification import EvidenceState, Judgement, Observations, advance, bets_of
from targon.verification.verdict import Verdict as Finding
from targon.verifier.book import with_evidence
from tests.verification.completions import HONEST, band_with, drawn, observed

PROVER = Hotkey("5" + "P" * 47)
BAND = band_with()
VERDICT = Verdict(
    attempt=7, outcome="pass", method="divergence", score=1.0, reason="fits", replied=True, tokens=1
)
HONESTLY = drawn(np.random.default_rng(1), HONEST)
WRONG = observed([5.5] * 9 + [0.33] * 3000, [True] * 9 + [False] * 3000)
"""Wrong at first, then right for so long that the evidence ends below its bound."""


def written(found: Observations | None, before: EvidenceState | None = None, *, band=BAND) -> list:
    judgement = Judgement(Finding("pass", "divergence", 1.0, "fits"), found, band)
    noted = None if before is None else before.to_json()
    return with_evidence(VERDICT, judgement, noted, Digest("ca" * 32), PROVER, Block(9))


def test_a_verdict_without_observations_stays_as_it_is() -> None:
    assert written(None) == [VERDICT]
    assert written(None, band=None) == [VERDICT]


def test_observations_without_bounds_leave_no_evidence() -> None:
    assert written(HONESTLY, band=None) == [VERDICT]


def test_with_a_verdict_stands_what_was_observed_and_what_the_evidence_became() -> None:
    (noted,) = written(HONESTLY)
    after = advance(EvidenceState(), HONESTLY, bets_of(BAND))
    assert noted.observed == HONESTLY.pack()
    assert noted.evidence_after == after.to_json()
    assert noted.tokens == HONESTLY.positions
    assert noted.model_copy(update={"observed": None, "evidence_after": None, "tokens": 1}) == VERDICT


def test_the_evidence_goes_on_from_what_the_log_holds() -> None:
    before = advance(EvidenceState(), HONESTLY, bets_of(BAND))
    (noted,) = written(HONESTLY, before)
    assert noted.evidence_after["completions"] == 2
    assert noted.evidence_after == advance(before, HONESTLY, bets_of(BAND)).to_json()


def test_evidence_that_reaches_its_bound_is_followed_by_the_conviction() -> None:
    before = advance(EvidenceState(), HONESTLY, bets_of(BAND))
    noted, conviction = written(WRONG, before)
    after = EvidenceState.from_json(noted.evidence_after)
    assert isinstance(conviction, ProverConvicted)
    assert (conviction.prover, conviction.attempt, conviction.block) == (PROVER, 7, 9)
    assert (conviction.tokens, conviction.completions) == (after.convicted_at, 2)
    assert conviction.calibration == "ca" * 32
    assert conviction.looks_like == after.looks_like


def test_a_conviction_states_evidence_that_convicts_though_it_has_sunk_by_its_end() -> None:
    noted, conviction = written(WRONG)
    assert EvidenceState.from_json(noted.evidence_after).log_e < LOG_CONVICTION
    assert conviction.log_e == pytest.approx(math.log(10_000.0))


def test_a_conviction_states_the_highest_evidence() -> None:
    _, conviction = written(observed([5.5] * 40, [True] * 40))
    assert conviction.log_e > 2.0 * LOG_CONVICTION
