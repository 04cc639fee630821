"""Evidence is followed in the order of the log, however many records are looked at together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.written_log import calibration
from targon.audit import proving
from targon.audit.proving import Proving
from targon.protocol.conviction import LOG_CONVICTION
from targon.verification import EvidenceState, Observations, advance, bets_of
from tests.verification.completions import HONEST, INT4, drawn

CALIBRATION = calibration()
PROVER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"

Records = list[tuple[int, dict[str, Any] | None]]
"""By place; None: one of those that fill a log."""


def verdict(attempt: int, observed: Observations, after: EvidenceState) -> dict[str, Any]:
    return {
        "kind": "verdict",
        "attempt": attempt,
        "outcome": "pass",
        "score": 1.0,
        "tokens": observed.positions,
        "observed": observed.pack(),
        "evidence_after": after.to_json(),
        "receipt": {"body": {"prover": PROVER, "model": "a model"}},
    }


def a_log(rates: np.ndarray, verdicts: int) -> Records:
    """Verdicts about one prover, with an attempt before each, and its convictions."""
    rng, bets, state = np.random.default_rng(5), bets_of(CALIBRATION.bands[0]), EvidenceState()
    adopted = {"kind": "calibration_adopted", "model": "a model", "calibration": CALIBRATION.digest()}
    events: list[dict[str, Any] | None] = [adopted]
    for _ in range(verdicts):
        observed = Observations.unpack(drawn(rng, rates).pack())
        state = advance(state, observed, bets)
        attempt = len(events)
        events += [None, verdict(attempt, observed, state)]
        if state.convicted:
            peak = max(state.log_peak, LOG_CONVICTION)
            events.append(
                {
                    "kind": "prover_convicted",
                    "prover": PROVER,
                    "attempt": attempt,
                    "log_e": peak,
                    "tokens": state.convicted_at,
                    "completions": state.completions,
                }
            )
            state = EvidenceState()
    return list(enumerate(events))


def followed(records: Records) -> Proving:
    found = Proving({CALIBRATION.digest(): CALIBRATION})
    for seq, event in records:
        if event is not None:
            found.take(seq, event, 1_000)
    found.settle(len(records))
    return found


@pytest.fixture(params=[1, 3, 128], autouse=True)
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "TOGETHER", request.param)


@pytest.mark.parametrize("rates", [HONEST, INT4])
def test_evidence_that_follows_is_found_to(rates: np.ndarray) -> None:
    found = followed(a_log(rates, 40))
    assert (found.faults.kept, found.checked, found.unchecked) == ([], 40, 0)


@pytest.mark.parametrize("put", [None, {"kind": "step_closed"}])
def test_a_conviction_left_out_is_named_where_it_was_due(put: dict[str, Any] | None) -> None:
    records = a_log(INT4, 40)
    seq = next(seq for seq, event in records if event is not None and event["kind"] == "prover_convicted")
    records[seq] = (seq, put)
    found = followed(records).faults.kept
    assert (found[0].kind, found[0].record) == ("evidence", seq)
    assert found[0].got == f"no conviction of {PROVER}"


def test_a_conviction_that_may_still_come_is_not_missed() -> None:
    records = a_log(INT4, 40)
    seq = next(seq for seq, event in records if event is not None and event["kind"] == "prover_convicted")
    found = followed(records[:seq])
    assert found.faults.kept == []
    found.settle(seq + 1)  # the record there was another
    assert [fault.record for fault in found.faults.kept] == [seq]


@pytest.mark.parametrize("field", ["evidence_after", "score", "tokens", "observed"])
def test_one_that_does_not_follow_is_named_among_many(field: str) -> None:
    records = a_log(HONEST, 40)
    seq, event = records[40]
    assert event is not None
    changed = {
        "evidence_after": {**event["evidence_after"], "log_peak": 1e-9},
        "score": 0.1,
        "tokens": 63,
        "observed": "AAAA",
    }
    records[seq] = (seq, {**event, field: changed[field]})
    found = followed(records).faults.kept
    assert (found[0].kind, found[0].record) == ("evidence", seq)
