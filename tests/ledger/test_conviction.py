"""What a conviction, a calibration and the evidence do to the standings, and what is said of them."""

from __future__ import annotations

import math
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from targon.ledger import (
    CalibrationAdopted,
    InvalidHistory,
    ProverConvicted,
    ProverStanding,
    Snapshot,
    SqliteLog,
    Standings,
    Verdict,
    explain,
)
from targon.ledger.port import EMPTY
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.profile import DEMO
from targon.protocol.tiers import Tier
from tests.ledger.history import (
    ALICE,
    BOB,
    MODEL,
    History,
    attempt,
    folded,
    interval_closed,
    left,
    passes,
    step_closed,
    verdict,
    weights_set,
)

EVIDENCE: dict[str, Any] = {"completions": 3, "tokens": 90, "log_wealth": [0.5, -2.0], "convicted_at": None}


def convicted(prover: Hotkey, number: int, log_e: float = LOG_CONVICTION, block: int = 9) -> ProverConvicted:
    return ProverConvicted(
        block=Block(block),
        prover=prover,
        attempt=number,
        log_e=log_e,
        tokens=71,
        completions=3,
        calibration="ca" * 32,
    )


def with_evidence(number: int, outcome: Any = "fail") -> Verdict:
    return verdict(number, outcome).model_copy(update={"observed": "AAAA", "evidence_after": EVIDENCE})


def risen(*provers: Hotkey) -> History:
    """A history in whose interval 1 every prover has tier, score, tokens, evidence and open earnings."""
    history = History.begun(*provers)
    for prover in provers:
        history.add(attempt(prover, 1))
        history.add(with_evidence(history.next - 1, "pass"))
        for _ in range(6):
            history.add(attempt(prover, 1))
            history.add(verdict(history.next - 1))
    history.add(step_closed(1))
    history.turn(0, 2)
    history.step(3, *[(prover, "pass") for prover in provers])
    for prover in provers:
        history.add(attempt(prover, 9))
        history.add(verdict(history.next - 1))
    return history


def standing(history: History, prover: Hotkey) -> ProverStanding:
    found = history.standings.prover(prover)
    assert found is not None
    return found


def judged(history: History, prover: Hotkey, block: int = 9) -> int:
    """Judge one more answer, with evidence; returns the attempt's number."""
    number = history.next
    history.add(attempt(prover, block), with_evidence(number))
    return number


# evidence


def test_the_evidence_of_a_verdict_is_what_the_prover_stands_with_until_the_next() -> None:
    history = History.begun(ALICE, BOB)
    assert standing(history, ALICE).evidence is None
    judged(history, ALICE)
    assert standing(history, ALICE).evidence == EVIDENCE
    assert standing(history, BOB).evidence is None
    history.add(attempt(ALICE, 9))
    history.add(verdict(history.next - 1))
    assert standing(history, ALICE).evidence == EVIDENCE


@pytest.mark.parametrize("outcome", ["pass", "fail", "inconclusive"])
def test_evidence_counts_whatever_the_outcome(outcome: str) -> None:
    history = History.begun(ALICE)
    history.add(attempt(ALICE, 1))
    history.add(with_evidence(history.next - 1, outcome))
    assert standing(history, ALICE).evidence == EVIDENCE


def test_evidence_stays_a_hotkey_s_own_when_it_leaves() -> None:
    history = History.begun(ALICE)
    judged(history, ALICE, block=1)
    history.add(left(ALICE, 0))
    assert standing(history, ALICE).evidence == EVIDENCE


# what a conviction needs


def test_a_conviction_stands_right_after_the_verdict_that_carries_it() -> None:
    history = History.begun(ALICE)
    number = judged(history, ALICE)
    history.add(convicted(ALICE, number))
    assert standing(history, ALICE).convictions == 1


@pytest.mark.parametrize("between", [step_closed(9), weights_set({0: 65_535}, 9)])
def test_a_conviction_with_anything_between_it_and_its_verdict_is_refused(between: Any) -> None:
    history = History.begun(ALICE)
    number = judged(history, ALICE)
    history.add(between)
    with pytest.raises(InvalidHistory, match="expected its verdict just before"):
        history.add(convicted(ALICE, number))
    assert standing(history, ALICE).convictions == 0


def test_a_conviction_after_another_s_verdict_is_refused() -> None:
    history = History.begun(ALICE, BOB)
    first = judged(history, ALICE)
    second = judged(history, BOB)
    for prover, number in ((ALICE, first), (ALICE, second), (BOB, first)):
        with pytest.raises(InvalidHistory, match="expected its verdict just before"):
            history.add(convicted(prover, number))
    history.add(convicted(BOB, second))


def test_native_work_convicts_nobody() -> None:
    history = History.begun(ALICE)
    number = history.next
    history.add(attempt(ALICE, 1, dialect="native"), verdict(number, "fail"))
    with pytest.raises(InvalidHistory, match="expected its verdict just before"):
        history.add(convicted(ALICE, number))


def test_one_verdict_convicts_once() -> None:
    history = History.begun(ALICE)
    number = judged(history, ALICE)
    history.add(convicted(ALICE, number))
    with pytest.raises(InvalidHistory, match="expected its verdict just before"):
        history.add(convicted(ALICE, number))


@pytest.mark.parametrize("log_e", [math.log(9_999.0), 0.0, -5.0])
def test_a_conviction_with_too_little_evidence_is_refused(log_e: float) -> None:
    history = History.begun(ALICE)
    number = judged(history, ALICE)
    with pytest.raises(InvalidHistory, match=r"expected at least 9\.21"):
        history.add(convicted(ALICE, number, log_e))
    assert standing(history, ALICE).evidence == EVIDENCE
    history.add(convicted(ALICE, number, math.log(10_001.0)))


# what a conviction does


def test_a_conviction_leaves_nothing_of_what_was_earned() -> None:
    history = risen(ALICE)
    before = standing(history, ALICE)
    assert before.tier > Tier.BRONZE
    assert before.score > 0.0
    assert before.total_successes > 0
    assert before.settled_attempts > 0
    assert not before.on_probation
    history.add(convicted(ALICE, judged(history, ALICE)))
    after = standing(history, ALICE)
    assert (after.tier, after.fallen_from) == (Tier.BRONZE, None)
    assert (after.attempts, after.successes, after.replies, after.inconclusive) == (0, 0, 0, 0)
    assert (after.total_successes, after.settled_attempts, after.settled_successes) == (0, 0, 0)
    assert (after.score, after.verified_tokens, after.evidence) == (0.0, 0, None)
    assert after.on_probation
    assert after.success_rate is None
    assert (after.uid, after.sent) == (before.uid, before.sent + 1)


def test_a_convicted_prover_has_no_right_to_return_to_where_it_fell_from() -> None:
    history = risen(ALICE).add(step_closed(9)).turn(1, 10)
    for _ in range(4):
        history.add(attempt(ALICE, 11))
        history.add(verdict(history.next - 1, "fail", replied=False))
    history.add(step_closed(11)).turn(2, 12)
    assert standing(history, ALICE).fallen_from is not None
    history.add(convicted(ALICE, judged(history, ALICE, 13)))
    assert standing(history, ALICE).fallen_from is None


def test_what_a_convicted_prover_earned_in_an_open_step_is_forfeited() -> None:
    history = risen(ALICE, BOB)
    honest = standing(history, BOB).score
    history.add(convicted(ALICE, judged(history, ALICE)), step_closed(9))
    assert standing(history, ALICE).score == 0.0
    assert standing(history, BOB).score > honest


def test_a_conviction_leaves_everybody_else_alone() -> None:
    history = risen(ALICE, BOB)
    before = standing(history, BOB)
    history.add(convicted(ALICE, judged(history, ALICE)))
    assert standing(history, BOB) == before


def test_a_convicted_prover_has_no_weight_until_its_probation_is_over_again() -> None:
    history = risen(ALICE, BOB)
    history.add(convicted(ALICE, judged(history, ALICE)), step_closed(9))
    weights = history.standings.weights()
    assert isinstance(weights, dict)
    assert weights.keys() == {1}
    history.step(10, *passes(ALICE, 4), tokens=DEMO.probation_tokens // 4 - 1)
    assert standing(history, ALICE).on_probation
    history.step(11, *passes(ALICE, 1), tokens=4)
    weights = history.standings.weights()
    assert isinstance(weights, dict)
    assert weights.keys() == {0, 1}


def test_convictions_are_counted_and_the_first_is_remembered_beside_the_last() -> None:
    history = History.begun(ALICE)
    for block in (9, 10):
        history.add(convicted(ALICE, judged(history, ALICE, block), block + 1.0, block))
    found = standing(history, ALICE)
    assert found.first_conviction is not None
    assert found.last_conviction is not None
    assert found.convictions == 2
    assert (found.first_conviction.block, found.first_conviction.log_e) == (9, 10.0)
    assert (found.last_conviction.block, found.last_conviction.log_e) == (10, 11.0)
    assert (found.last_conviction.tokens, found.last_conviction.completions) == (71, 3)
    assert found.last_conviction.seq == history.head.seq


def test_an_interval_with_a_conviction_in_it_settles_from_the_bottom() -> None:
    history = risen(ALICE)
    history.add(convicted(ALICE, judged(history, ALICE)), step_closed(9), interval_closed(1, 10))
    assert standing(history, ALICE).tier == Tier.BRONZE


# calibrations


def adopted(model: str, calibration: str, block: int = 4) -> CalibrationAdopted:
    return CalibrationAdopted(
        block=Block(block), model=model, model_digest="cd" * 32, calibration=calibration
    )


def test_each_model_is_judged_by_the_calibration_adopted_last() -> None:
    history = History.begun(ALICE)
    assert dict(history.standings.calibrations) == {}
    history.add(adopted(MODEL, "aa" * 32), adopted("other", "bb" * 32), adopted(MODEL, "cc" * 32, 8))
    assert dict(history.standings.calibrations) == {MODEL: "cc" * 32, "other": "bb" * 32}
    assert history.standings.block == 8


# snapshots, and the story


def test_a_snapshot_keeps_evidence_convictions_calibrations_and_the_verdict_just_before() -> None:
    history = risen(ALICE, BOB).add(adopted(MODEL, "aa" * 32))
    history.add(convicted(ALICE, judged(history, ALICE)))
    number = judged(history, BOB)
    standings = history.standings
    restored = Standings.from_snapshot(Snapshot(standings.head, standings.to_snapshot()))
    assert restored.provers() == standings.provers()
    assert restored.calibrations == standings.calibrations
    assert restored.to_snapshot() == standings.to_snapshot()
    history.add(convicted(BOB, number))  # may follow, since the snapshot knows the verdict before it
    restored.apply(history.records[-1])
    assert restored.to_snapshot() == history.standings.to_snapshot()
    assert folded(history.records).provers() == restored.provers()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("log_e", "said"), [(math.log(25_000.0), "e = 25,000"), (100.0 * math.log(10.0) + 0.01, "e = 10^100")]
)
async def test_why_a_prover_was_convicted_is_told_in_words(path: Path, log_e: float, said: str) -> None:
    history = History.begun(ALICE, BOB)
    history.add(convicted(ALICE, judged(history, ALICE), log_e))
    history.add(step_closed(9), weights_set({1: 65_535}, 9))
    log = await SqliteLog.open(path)
    try:
        await log.append(history.events, expected=EMPTY)
        alice, bob = [await explain(log, who) for who in (ALICE, BOB)]
    finally:
        await log.aclose()
    (entry,) = [one for one in alice if one.kind == "convicted"]
    assert entry.block == 9
    assert "convicted after 71 verified tokens of 3 answers" in entry.text
    assert said in entry.text
    assert "an honest prover's ever reaches 10,000 with probability 0.0001 at most" in entry.text
    assert "falls to Bronze" in entry.text
    assert alice[-1].text.endswith("on probation since its conviction in block 9")
    assert not any(one.kind == "convicted" for one in bob)


@pytest.mark.anyio
async def test_a_conviction_is_told_with_what_it_looks_like(path: Path) -> None:
    history = History.begun(ALICE)
    history.add(attempt(ALICE, 9))
    number = history.next - 1
    event = convicted(ALICE, number).model_copy(
        update={"looks_like": "a temperature 0.1 higher than asked for"}
    )
    history.add(with_evidence(number), event)
    async with aclosing(await SqliteLog.open(path)) as log:
        await log.append(history.events, expected=EMPTY)
        told = [entry.text for entry in await explain(log, ALICE)]
    assert "71 verified tokens of 3 answers" in told[-1]
    assert "What fits best: a temperature 0.1 higher than asked for." in told[-1]
