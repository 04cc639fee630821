"""Evidence, followed from verdict to verdict: a conviction stands where it is due, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.written_log import calibration
from targon.audit.proving import Proving
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.primitives import Hotkey
from targon.protocol.suspicions import SUSPICIONS
from targon.verification import EvidenceState, Observations, advance, bets_of

PROVER, MODEL = Hotkey("5Prover"), "a model"
POSITIONS = 256


def observations(*, mismatched: bool) -> Observations:
    return Observations.unpack(
        Observations(
            gaps=np.full(POSITIONS, 2.0),
            mismatched=np.full(POSITIONS, mismatched),
            unsure=np.zeros(POSITIONS, dtype=bool),
            tail_mass=np.zeros(POSITIONS),
            in_tail=np.zeros(POSITIONS, dtype=bool),
            rivals=np.full(POSITIONS, int("f" * len(SUSPICIONS), 16), dtype=np.uint32),
            claimed_rivals=np.zeros(POSITIONS, dtype=np.uint8),
        ).pack()
    )


def verdict(observed: Observations, **changes: Any) -> tuple[EvidenceState, dict[str, Any]]:
    """The first verdict on a prover, and what its evidence becomes by it."""
    after = advance(EvidenceState(), observed, bets_of(calibration().bands[0]))
    share = 1.0 - float(observed.mismatched.mean())
    event = {
        "kind": "verdict",
        "attempt": 1,
        "outcome": "fail" if share < 1.0 else "pass",
        "score": share,
        "tokens": POSITIONS,
        "observed": observed.pack(),
        "evidence_after": after.to_json(),
        "receipt": {"body": {"prover": PROVER, "model": MODEL}},
    }
    return after, event | changes


def conviction(after: EvidenceState, **changes: Any) -> dict[str, Any]:
    said = {
        "kind": "prover_convicted",
        "prover": PROVER,
        "attempt": 1,
        "log_e": max(after.log_peak, LOG_CONVICTION),
        "tokens": after.convicted_at,
        "completions": after.completions,
    }
    return said | changes


def found(*events: dict[str, Any]) -> list[str]:
    ours = calibration()
    proving = Proving({ours.digest(): ours})
    adopted = {"kind": "calibration_adopted", "model": MODEL, "calibration": ours.digest()}
    for seq, event in enumerate([adopted, *events]):
        proving.take(seq, event, 1_000)
    proving.settle(len(events) + 1)
    return [str(fault) for fault in proving.faults.kept]


def test_a_conviction_that_is_due_is_in_order() -> None:
    after, event = verdict(observations(mismatched=True))
    assert after.convicted
    assert found(event, conviction(after)) == []


def test_one_that_is_due_and_left_out_is_named() -> None:
    _, event = verdict(observations(mismatched=True))
    (fault,) = found(event, {"kind": "step_closed"})
    assert f"got no conviction of {PROVER}" in fault


@pytest.mark.parametrize("changes", [{"log_e": 99.0}, {"tokens": 3}, {"completions": 2}])
def test_one_that_says_something_else_is_named(changes: dict[str, Any]) -> None:
    after, event = verdict(observations(mismatched=True))
    (fault,) = found(event, conviction(after, **changes))
    assert "got convicted with ln e, tokens, completions" in fault


def test_one_by_another_attempt_is_named() -> None:
    after, event = verdict(observations(mismatched=True))
    (fault,) = found(event, conviction(after, attempt=7))
    assert "expected evidence that reached its bound with the record before" in fault


def test_observations_without_evidence_are_named() -> None:
    _, event = verdict(observations(mismatched=False), evidence_after=None)
    (fault,) = found(event)
    assert "observations without evidence" in fault


def test_more_tokens_than_were_observed_are_named() -> None:
    _, event = verdict(observations(mismatched=False), tokens=POSITIONS + 1)
    (fault,) = found(event)
    assert f"got {POSITIONS + 1} verified tokens, expected {POSITIONS}, as observed" in fault
