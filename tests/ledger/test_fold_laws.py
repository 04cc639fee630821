"""What holds of every history."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from targon.ledger import (
    Answered,
    Attempt,
    Event,
    IntervalClosed,
    ProverStanding,
    Route,
    Snapshot,
    Standings,
    StepClosed,
    Verdict,
    Withdrawn,
)
from targon.protocol.messages import Dialect
from targon.protocol.profile import DEMO
from targon.protocol.tiers import TIERS
from targon.protocol.verdicts import Outcome, Purpose
from targon.protocol.weights import MAX_WEIGHT, NoWeights
from tests.ledger.history import (
    ALICE,
    BOB,
    CAROL,
    MODEL,
    History,
    answered,
    attempt,
    folded,
    history_with_routes,
    inference,
    interval_closed,
    interval_opened,
    joined,
    left,
    receipt,
    skipped,
    step_closed,
    verdict,
    weights_not_set,
    weights_set,
    withdrawn,
)

PROVERS = (ALICE, BOB, CAROL)

outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["pass", "pass", "pass", "fail", "inconclusive"])
purposes: st.SearchStrategy[Purpose] = st.sampled_from(["challenge", "inference"])
dialects: st.SearchStrategy[Dialect] = st.sampled_from(["targon/1", "targon/1", "greedy", "native"])
speeds = st.none() | st.floats(0.0, 1e4)


@st.composite
def work(draw: st.DrawFn, history: History, block: int) -> list[Event]:
    """Attempts of one block, appended; and how they end, which is still to come."""
    seated = [prover for prover in PROVERS if _uid(history, prover) is not None]
    if not seated:
        return []
    routed = history.standings.routes(MODEL)
    endings: list[Event] = []
    for _ in range(draw(st.integers(0, 5))):
        prover, number = draw(st.sampled_from(seated)), history.next
        event = attempt(prover, block, purpose=draw(purposes), dialect=draw(dialects))
        if event.purpose == "inference":
            event = event.model_copy(update={"counted": draw(st.booleans())})
            if _uid(history, prover) in routed and draw(st.booleans()):
                event = event.model_copy(update={"route": Route(turn=0)})
        history.add(event)
        endings.append(draw(_ending(number, event)))
    return endings


@st.composite
def _ending(draw: st.DrawFn, number: int, event: Attempt) -> Event:
    how = draw(st.sampled_from(["verdict", "answered", "withdrawn"]))
    if event.purpose == "inference" and how == "withdrawn":
        return withdrawn(number, draw(st.sampled_from(["user_left", "outrun", "busy", "unservable"])))
    if event.purpose == "inference" and how == "answered":
        return answered(number, event.prover, speed=draw(speeds))
    outcome = draw(outcomes)
    replied = outcome == "pass" or draw(st.booleans())
    tokens = draw(st.integers(0, 64))
    return verdict(number, outcome, tokens=tokens, speed=draw(speeds), replied=replied)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Some intervals of a small network, everything that can happen in it included."""
    history = history_with_routes(*PROVERS)
    block = 0
    for interval in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0, 4))):
            block += 1
            history.add(*draw(work(history, block)))
            for number in _audited(draw, history, block):
                history.add(verdict(number, draw(outcomes)))
            history.add(step_closed(block))
            if draw(st.booleans()):
                block += 2
                history.add(skipped(block - 1, block), weights_not_set("a try", block))
            if draw(st.booleans()):
                _leave_or_come_back(history, draw(st.sampled_from(PROVERS)), block)
        history.add(interval_closed(interval, block), weights_set({0: MAX_WEIGHT}, block))
        history.add(interval_opened(interval + 1, block))
    return history


def _audited(draw: st.DrawFn, history: History, block: int) -> list[int]:
    """Inferences that were answered and await their verdict, some of them from earlier; and one more of those."""
    seated = [prover for prover in PROVERS if _uid(history, prover) is not None]
    if seated and draw(st.booleans()):
        prover, number = draw(st.sampled_from(seated)), history.next
        history.add(inference(prover, block, route=None), answered(number, prover, audited=True))
    return [number for number in history.standings.under_audit if draw(st.booleans())]


def _uid(history: History, prover: str) -> int | None:
    standing = history.standings.prover(prover)  # type: ignore[arg-type]
    return None if standing is None else standing.uid


def _leave_or_come_back(history: History, prover: str, block: int) -> None:
    uid = _uid(history, prover)
    if uid is None:
        free = next(n for n in range(100) if history.standings.holder(n) is None)  # type: ignore[arg-type]
        history.add(joined(prover, free, block))  # type: ignore[arg-type]
    else:
        history.add(left(prover, uid, block))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(histories(), st.data())
def test_folding_from_a_snapshot_equals_folding_from_the_start(history: History, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(history.records)))
    early = folded(history.records[:cut])
    resumed = Standings.from_snapshot(Snapshot(early.head, early.to_snapshot()))
    assert resumed.provers() == early.provers()
    for record in history.records[cut:]:
        resumed.apply(record)
    assert resumed.to_snapshot() == history.standings.to_snapshot()
    assert resumed.provers() == history.standings.provers()


@settings(max_examples=40, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_the_order_of_endings_within_a_block_changes_nothing(data: st.DataObject, random: Random) -> None:
    history = history_with_routes(*PROVERS)
    history.add(*data.draw(work(history, 1)), step_closed(1)).turn(0, 10)
    begun = len(history.records)
    endings = data.draw(work(history, 11))
    asked = history.records[begun:]
    shuffled = list(endings)
    random.shuffle(shuffled)
    other = History()
    other.add(*history.events[:begun], *(record.event for record in asked))
    for branch, order in ((history, endings), (other, shuffled)):
        branch.add(*order, step_closed(11), interval_closed(1, 20))
    assert [_rank(p) for p in history.standings.provers()] == [_rank(p) for p in other.standings.provers()]
    assert history.standings.weights() == other.standings.weights()
    assert history.standings.medians == other.standings.medians


def _rank(prover: ProverStanding) -> tuple[object, ...]:
    """Everything of a standing but which verdict came last."""
    return (
        prover.hotkey,
        prover.tier,
        prover.score,
        prover.attempts,
        prover.successes,
        prover.replies,
        prover.inconclusive,
        prover.sent,
        prover.total_successes,
        prover.verified_tokens,
        prover.settled_attempts,
        prover.settled_successes,
    )


@settings(max_examples=40, deadline=None)
@given(histories())
def test_no_prover_rises_without_the_rate_of_the_tier_it_reaches(history: History) -> None:
    standings = Standings()
    for record in history.records:
        before = {prover.hotkey: prover for prover in standings.provers()} if standings.opened else {}
        standings.apply(record)
        for prover in standings.provers():
            earlier = before.get(prover.hotkey)
            if earlier is not None and prover.tier > earlier.tier:
                assert record.event.kind == "interval_closed"
                rate = Fraction(earlier.successes, earlier.attempts)
                assert rate >= TIERS[prover.tier].success_rate
                assert earlier.attempts >= DEMO.min_attempts


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_native_work_anywhere_moves_no_tier_no_score_and_no_weight(
    history: History, data: st.DataObject
) -> None:
    other = _with_native_work(history, data)
    assert [_counted(p) for p in other.standings.provers()] == [
        _counted(p) for p in history.standings.provers()
    ]
    assert other.standings.weights() == history.standings.weights()
    assert other.standings.medians == history.standings.medians


def _with_native_work(history: History, data: st.DataObject) -> History:
    """The same history, with native attempts and their verdicts wherever they can stand."""
    other, places, open_ = History(), dict[int, int](), list[int]()
    for at, event in enumerate(history.events):
        if event.kind == "step_closed":
            while open_:
                other.add(data.draw(_native_verdicts(open_.pop())))
        if isinstance(event, Answered):
            receipt_ = receipt(places[event.attempt], event.receipt.body.prover)
            event = event.model_copy(update={"attempt": places[event.attempt], "receipt": receipt_})
        elif isinstance(event, Verdict | Withdrawn):
            event = event.model_copy(update={"attempt": places[event.attempt]})
        places[at] = other.next
        other.add(event)
        block = _next_step(history, at)
        seated = [p.hotkey for p in other.standings.provers() if p.uid is not None] if at else []
        if block is None or other.standings.interval is None or not seated:
            continue
        for _ in range(data.draw(st.integers(0, 2))):
            number = other.next
            dialect = data.draw(st.sampled_from(UNCOUNTED))
            other.add(attempt(data.draw(st.sampled_from(seated)), block, dialect=dialect))
            if data.draw(st.booleans()):
                other.add(data.draw(_native_verdicts(number)))
            else:
                open_.append(number)
    return other


UNCOUNTED: tuple[Dialect, ...] = ("native", "vllm")


def _next_step(history: History, at: int) -> int | None:
    """The block whose step is the next to close, if its interval doesn't end before."""
    for event in history.events[at + 1 :]:
        if isinstance(event, StepClosed):
            return event.block
        if isinstance(event, IntervalClosed):
            return None
    return None


@st.composite
def _native_verdicts(draw: st.DrawFn, number: int) -> Verdict:
    outcome = draw(outcomes)
    replied = outcome == "pass" or draw(st.booleans())
    return verdict(number, outcome, tokens=draw(st.integers(0, 64)), speed=draw(speeds), replied=replied)


def _counted(prover: ProverStanding) -> ProverStanding:
    """A standing without what only shows that there was other work."""
    return replace(prover, sent=0, native=0, native_replies=0, last_verdict=None)


@settings(max_examples=40, deadline=None)
@given(histories())
def test_weights_are_whole_numbers_with_their_maximum_at_the_top(history: History) -> None:
    weights = history.standings.weights()
    if isinstance(weights, NoWeights):
        assert weights.reason
    else:
        assert max(weights.values()) == MAX_WEIGHT
        assert min(weights.values()) > 0


@settings(max_examples=40, deadline=None)
@given(histories())
def test_folding_twice_gives_the_same_bytes(history: History) -> None:
    assert folded(history.records).to_snapshot() == history.standings.to_snapshot()
