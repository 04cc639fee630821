"""A verifier that keeps its log in order, chains and signs it, and yet suits itself or a favourite: it is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.written_log import MODEL, Life
from targon.audit import Exporter, Report, Wanted
from targon.audit.chances import Chance
from targon.ledger import (
    Answered,
    Attempt,
    BlocksSkipped,
    CalibrationAdopted,
    Event,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    Record,
    Route,
    RoutesSet,
    Standings,
    StepClosed,
    Verdict,
    WeightsProposed,
    WeightsSet,
    chain_records,
)
from targon.ledger.port import EMPTY, Head
from targon.protocol import draws, routing
from targon.protocol.messages import Receipt
from targon.protocol.primitives import Block, Hotkey, Interval, Uid
from targon.verification import EvidenceState
from tests.audit.world import PROVERS, VERIFIER, Published, a_log

pytestmark = pytest.mark.anyio

FAVOURITE = Hotkey(PROVERS[0].ss58_address)
FIRST = Uid(1)
"""The favourite's UID."""


async def audited(events: list[Event], folder: Path) -> Report:
    """What an audit says of events, whose heads and weights are made to fit first."""
    standings, head, made, weights = Standings(), EMPTY, [], ()
    for event in events:
        if isinstance(event, HeadAnchored):
            event = event.model_copy(update={"head": standings.interval_head})
        if isinstance(event, WeightsProposed):
            found = standings.weights()
            assert isinstance(found, dict)
            weights = tuple(sorted(found.items()))
            event = event.model_copy(update={"weights": weights})
        if isinstance(event, WeightsSet):
            event = event.model_copy(update={"weights": weights})
        (record,) = chain_records([event], head)
        standings.apply(record)
        head = Head(record.seq, record.hash)
        made.append(record.event)
    assert standings.opened is not None
    async with a_log(folder / "log.sqlite", made) as log:
        await Exporter(folder / "segments", log, VERIFIER).export(standings.opened, standings.released)
    return Published(folder / "segments").audit(wanted=Wanted(signatures=0))


def events_of(life: Life) -> list[Event]:
    return [record.event for record in life.records]


def judged(life: Life, change: Callable[[Verdict], Event]) -> list[Event]:
    """A life whose verdicts on the favourite's proven answers are others."""
    events = events_of(life)
    return [
        change(event)
        if isinstance(event, Verdict)
        and event.observed
        and getattr(events[event.attempt], "prover", None) == FAVOURITE
        else event
        for event in events
    ]


def kinds(report: Report) -> set[str]:
    return set(report.faults.counts)


async def test_evidence_that_is_reset_is_named_whatever_a_verdict_calls_itself(
    life: Life, tmp_path: Path
) -> None:
    def reset(event: Verdict) -> Event:
        looks = {"kind": "answered", "n": 1}
        return event.model_copy(update={"evidence": looks, "evidence_after": EvidenceState().to_json()})

    assert "evidence" in kinds(await audited(judged(life, reset), tmp_path))


@pytest.mark.parametrize("field", ["prover", "model", "verifier"])
async def test_a_verdict_with_the_receipt_of_somebody_or_something_else_is_named(
    life: Life, tmp_path: Path, field: str
) -> None:
    ghost = Keypair.create_from_uri("//Ghost").ss58_address

    def launder(event: Verdict) -> Event:
        assert event.receipt is not None
        body = event.receipt.body.model_copy(update={field: ghost})
        return event.model_copy(update={"receipt": event.receipt.model_copy(update={"body": body})})

    assert "receipt" in kinds(await audited(judged(life, launder), tmp_path))


async def test_an_answer_from_another_model_than_the_log_tells_of_is_named(
    life: Life, tmp_path: Path
) -> None:
    events = events_of(life)
    number = next(at for at, event in enumerate(events) if isinstance(event, Answered))
    event = events[number]
    assert isinstance(event, Answered)
    body = event.receipt.body.model_copy(update={"model_digest": "ee" * 32})
    receipt = event.receipt.model_copy(update={"body": body})
    events[number] = event.model_copy(update={"receipt": receipt})
    report = await audited(events, tmp_path)
    assert [(fault.kind, fault.where) for fault in report.faults.kept] == [("receipt", f"record {number}")]
    assert "digest eeeeeeeeeeee…" in report.faults.kept[0].got
    assert "cdcdcdcdcdcd…" in report.faults.kept[0].expected


async def test_from_a_new_calibration_on_receipts_name_its_model(life: Life, tmp_path: Path) -> None:
    def renewed(receipt: Receipt) -> Receipt:
        body = receipt.body.model_copy(update={"model_digest": "ee" * 32})
        return receipt.model_copy(update={"body": body})

    made: list[Event] = []
    for event in events_of(life):
        if isinstance(event, CalibrationAdopted):
            event = event.model_copy(update={"model_digest": "ee" * 32})
        elif isinstance(event, Answered | Verdict) and event.receipt is not None:
            event = event.model_copy(update={"receipt": renewed(event.receipt)})
        made.append(event)
    assert "receipt" not in kinds(await audited(made, tmp_path))


async def test_receipts_of_an_unknown_model_are_but_noted_where_nothing_is_earned(
    life: Life, tmp_path: Path
) -> None:
    events = events_of(life)
    number, event = next(
        (at, event) for at, event in enumerate(events) if isinstance(event, Answered) and not event.audited
    )
    body = event.receipt.body.model_copy(update={"model_digest": "ee" * 32})
    receipt = event.receipt.model_copy(update={"body": body})
    events[number] = event.model_copy(update={"receipt": receipt})
    asked = events[event.attempt]
    assert isinstance(asked, Attempt)
    events[event.attempt] = asked.model_copy(update={"counted": False})
    report = await audited(events, tmp_path)
    assert "receipt" not in kinds(report)
    assert any(note.startswith("1 receipts of work that earns nothing") for note in report.notes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"receipt": None, "observed": None, "evidence_after": None, "tokens": 0},
            "without receipt, observations and evidence",
        ),
        (
            {"observed": None, "evidence_after": None, "tokens": 5_000, "outcome": "fail"},
            "5000 verified tokens",
        ),
        ({"method": "trust me"}, "passed by 'trust me'"),
        ({"score": 0.5}, "passed with similarity 0.5"),
        ({"outcome": "fail", "score": 0.0}, "fail with similarity 0"),
    ],
)
async def test_a_verdict_that_follows_from_nothing_is_named(
    life: Life, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    report = await audited(judged(life, lambda event: event.model_copy(update=changes)), tmp_path)
    assert any(fault.kind == "evidence" and told in fault.got for fault in report.faults.kept)


async def test_an_inference_that_passes_without_its_answer_is_named(life: Life, tmp_path: Path) -> None:
    events = events_of(life)
    answered = {
        event.attempt
        for event in events
        if isinstance(event, Answered) and event.audited and event.receipt.body.prover == FAVOURITE
    }
    made = [
        # in the answer's place stands something that changes nothing
        BlocksSkipped(first=Block(0), last=Block(0), reason="")
        if isinstance(event, Answered) and event.attempt in answered
        else event
        for event in events
    ]
    report = await audited(made, tmp_path)
    assert {"audit", "history"} <= kinds(report)
    assert any("without an answer" in fault.got for fault in report.faults.kept)


# -- what a verifier does otherwise -------------------------------------------------------------------------


@dataclass
class Suited(Life):
    """A life whose verifier prefers its first prover."""

    verifier: Keypair = VERIFIER
    provers: list[Keypair] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.provers = PROVERS
        super().__post_init__()

    def favour(self, block: Block, turns: range, limit: int) -> list[Record]:
        shares = list(self.standings.routes(MODEL).items())
        made: list[Record] = []
        for _ in range(limit):
            number = self.next
            falls = [
                turn
                for turn in turns
                if routing.pick(draws.route_draw(self._secret, number, turn), shares) == FIRST
            ]
            if not falls:
                made += self.add(BlocksSkipped(first=Block(1), last=Block(1), reason="x"))
                continue
            is_audited = self._is_audited(number, FAVOURITE)
            made += self.add(self._attempt(FAVOURITE, block, "inference", Route(turn=falls[0])))
            made += self._answer(number, FAVOURITE, block, audited=is_audited)
        return made


class ShortIntervals(Suited):
    def _one_block(self) -> list[Record]:
        block = Block(self._block + 1)
        if block % 3 == 0:
            interval = Interval(block // 3)
            closed = IntervalClosed(interval=Interval(interval - 1), block=block, secret=self._secret.hex())
            self._secret = self._secret_of(interval)
            commitment = draws.commitment(self._secret)
            self.add(closed, IntervalOpened(interval=interval, block=block, commitment=commitment))
        self._block = block
        self._challenge(block)
        self.add(StepClosed(block=block))
        if block % self.weights_every == 0:
            self._weights(block)
        return []


class Flood(Suited):
    def _left(self, prover: Hotkey) -> int:
        return 1

    def _inference(self, block: Block) -> list[Record]:
        return self.favour(block, range(64), 100)


class HugeShare(Suited):
    def begin(self) -> list[Record]:
        shares = tuple((uid, 1_000_000 if uid == FIRST else 1) for uid in sorted(self._by_uid))
        return [*super().begin(), *self.add(RoutesSet(block=Block(0), model=MODEL, shares=shares))]


class OftenRouted(Suited):
    def _inference(self, block: Block) -> list[Record]:
        shares = tuple(self.standings.routes(MODEL).items())
        return self.add(*[RoutesSet(block=block, model=MODEL, shares=shares)] * 4)


class LateTurns(Suited):
    def _inference(self, block: Block) -> list[Record]:
        return self.favour(block, range(64, 200), 1)


class OwnForOne(Suited):
    def _own(self, block: Block) -> list[Record]:
        made: list[Record] = []
        for _ in range(5):
            number = self.next
            made += self.add(self._attempt(FAVOURITE, block, "inference", None))
            made += self._answer(number, FAVOURITE, block, audited=True)
        return made


class InsteadOfLater(Suited):
    def _inference(self, block: Block) -> list[Record]:
        number = self.next
        shares = list(self.standings.routes(MODEL).items())
        prover = self._by_uid[routing.pick(draws.route_draw(self._secret, number, 0), shares)]
        is_audited = self._is_audited(number, prover)
        made = self.add(self._attempt(prover, block, "inference", Route(turn=0, instead_of=number + 1)))
        return [*made, *self._answer(number, prover, block, audited=is_audited)]


class ChallengedTwice(Suited):
    def _challenge(self, block: Block) -> list[Record]:
        return [*super()._challenge(block), *super()._challenge(block)]


@pytest.mark.parametrize(
    ("kind", "told", "per_block"),
    [
        (ShortIntervals, "each has 8 blocks", 0),
        (Flood, "in one interval", 1),
        (HugeShare, "shares from 1 to 1000000", 1),
        (OftenRouted, "shares written 4 times", 1),
        (LateTurns, "expected one below 64", 1),
        (OwnForOne, "none was due", 0),
        (InsteadOfLater, "expected an attempt before it", 1),
        (ChallengedTwice, "one for each prover drawn", 0),
    ],
)
async def test_a_verifier_that_goes_beyond_its_bounds_is_named(
    tmp_path: Path, kind: type[Suited], told: str, per_block: int
) -> None:
    life = kind(per_block=per_block, challenges=1, signed=False).live(32)
    report = await audited(events_of(life), tmp_path)
    assert any(told in str(fault) for fault in report.faults.kept)


class Grinding(Suited):
    """Writes records until the draws fall as it likes."""

    def _inference(self, block: Block) -> list[Record]:
        shares = list(self.standings.routes(MODEL).items())
        while True:
            number = self.next
            falls = routing.pick(draws.route_draw(self._secret, number, 0), shares) == FIRST
            if falls and not self._is_audited(number, FAVOURITE):
                break
            self.add(BlocksSkipped(first=Block(1), last=Block(1), reason="x"))
        self.add(self._attempt(FAVOURITE, block, "inference", Route(turn=0)))
        return self._answer(number, FAVOURITE, block, audited=False)

    def _own(self, block: Block) -> list[Record]:
        return []


async def test_blocks_that_are_skipped_out_of_their_order_are_named(tmp_path: Path) -> None:
    life = Grinding(per_block=1, challenges=1, signed=False).live(24)
    assert "history" in kinds(await audited(events_of(life), tmp_path))


async def test_draws_that_were_waited_for_are_named(tmp_path: Path) -> None:
    life = Grinding(per_block=8, challenges=1, signed=False).live(40)
    report = await audited(events_of(life), tmp_path)
    assert "audit" in kinds(report)
    assert any("first drawn" in note for note in report.notes)


class NeverJudging(Suited):
    def _judge(self, number: int, prover: Hotkey) -> list[Record]:
        asked = self.standings.attempt(number)
        assert asked is not None
        if asked.purpose == "inference" and prover == FAVOURITE:
            return []
        return super()._judge(number, prover)


@pytest.mark.parametrize(("blocks", "fault"), [(60, False), (400, True)])
async def test_audited_answers_that_are_never_judged_are_named(
    tmp_path: Path, blocks: int, fault: bool
) -> None:
    life = NeverJudging(per_block=2, challenges=1, signed=False).live(blocks)
    report = await audited(events_of(life), tmp_path)
    assert report.awaiting_by_prover.keys() == {FAVOURITE}
    assert any(f"audited answers of {FAVOURITE} have waited" in note for note in report.notes)
    assert any("no verdict on" in each.got for each in report.faults.kept) is fault


# -- the laws behind it -------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, 4_095).map(Uid), st.integers(1, 10**6), max_size=12))
def test_shares_of_shares_are_the_same(capacities: dict[Uid, int]) -> None:
    made = routing.shares(capacities)
    assert routing.shares(dict(made)) == made


@given(st.integers(0, 2**32), st.floats(0.001, 1.0), st.integers(0, 2_000))
def test_what_chance_brings_is_not_odd(seed: int, probability: float, count: int) -> None:
    numbers, chance = random.Random(seed), Chance()
    for _ in range(count):
        chance.add(numbers.random() < probability, probability)
    assert not chance.odd
