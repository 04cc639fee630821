"""A builder of histories: events as a verifier would write them, chained into records."""

from __future__ import annotations

import hashlib
from typing import Any

from targon.ledger import (
    Answered,
    Attempt,
    BlocksSkipped,
    Event,
    Head,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ModelEntry,
    Outcome,
    ProverJoined,
    ProverLeft,
    Purpose,
    Record,
    Route,
    RoutesSet,
    Standings,
    StepClosed,
    Verdict,
    WeightsNotSet,
    WeightsProposed,
    WeightsSet,
    Withdrawn,
    chain_records,
)
from targon.ledger.port import EMPTY
from targon.protocol import draws
from targon.protocol.messages import Dialect, Receipt, ReceiptBody
from targon.protocol.primitives import Block, Hotkey, Interval, Uid, u64_hex
from targon.protocol.profile import DEMO, Profile

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def hotkey(number: int) -> Hotkey:
    """The hotkey of the number-th prover of a story: well-formed, and nobody's."""
    high, low = divmod(number, 58)
    return Hotkey("5" + "P" * 40 + _BASE58[high] + _BASE58[low])


ALICE, BOB, CAROL = (hotkey(i) for i in range(3))
VERIFIER = hotkey(57)
MODEL = "smollm2"


def secret(interval: int) -> bytes:
    return hashlib.sha256(b"interval %d" % interval).digest()


def log_opened(profile: Profile = DEMO) -> LogOpened:
    return LogOpened(
        spec_version=1,
        software="targon 0",
        genesis="ab" * 32,
        netuid=4,
        verifier=VERIFIER,
        profile=profile,
        models=(ModelEntry(name=MODEL, model_digest="cd" * 32),),
    )


def joined(prover: Hotkey, uid: int, block: int = 0) -> ProverJoined:
    return ProverJoined(block=Block(block), uid=Uid(uid), hotkey=prover)


def left(prover: Hotkey, uid: int, block: int = 0) -> ProverLeft:
    return ProverLeft(block=Block(block), uid=Uid(uid), hotkey=prover)


def interval_opened(interval: int, block: int = 0) -> IntervalOpened:
    commitment = draws.commitment(secret(interval))
    return IntervalOpened(interval=Interval(interval), block=Block(block), commitment=commitment)


def interval_closed(interval: int, block: int = 0) -> IntervalClosed:
    return IntervalClosed(interval=Interval(interval), block=Block(block), secret=secret(interval).hex())


def attempt(
    prover: Hotkey, block: int, *, purpose: Purpose = "challenge", dialect: Dialect = "targon/1"
) -> Attempt:
    return Attempt(
        block=Block(block),
        purpose=purpose,
        prover=prover,
        request_digest="ef" * 32,
        model=MODEL,
        dialect=dialect,
        max_tokens=64,
    )


def routes_set(*shares: tuple[int, int], block: int = 0, model: str = MODEL) -> RoutesSet:
    return RoutesSet(
        block=Block(block), model=model, shares=tuple((Uid(uid), share) for uid, share in shares)
    )


def inference(
    prover: Hotkey,
    block: int,
    *,
    route: Route | None = Route(turn=0),  # noqa: B008 - frozen
    dialect: Dialect = "targon/1",
    counted: bool = True,
) -> Attempt:
    """A user's, unless it has no route."""
    asked = attempt(prover, block, purpose="inference", dialect=dialect)
    return asked.model_copy(update={"route": route, "counted": counted})


def receipt(number: int, prover: Hotkey, request_digest: str = "ef" * 32) -> Receipt:
    """Of an attempt; nobody signed it."""
    body = ReceiptBody(
        salt="00" * 32,
        genesis="ab" * 32,
        netuid=4,
        verifier=VERIFIER,
        prover=prover,
        attempt=u64_hex(number),
        block=Block(0),
        request_digest=request_digest,
        completion_digest="12" * 32,
        model=MODEL,
        model_digest="cd" * 32,
        issued_at=0,
    )
    return Receipt(body=body, signature="34" * 64)


def answered(
    number: int,
    prover: Hotkey,
    block: int = 0,
    *,
    audited: bool = False,
    tokens: int = 64,
    speed: float | None = None,
) -> Answered:
    return Answered(
        attempt=number,
        block=Block(block),
        audited=audited,
        tokens=tokens,
        tokens_per_s=speed,
        receipt=receipt(number, prover),
    )


def withdrawn(number: int, why: Any = "user_left", block: int = 0) -> Withdrawn:
    return Withdrawn(attempt=number, block=Block(block), why=why)


def verdict(
    number: int,
    outcome: Outcome = "pass",
    *,
    tokens: int = 64,
    speed: float | None = None,
    replied: bool = True,
    reason: str = "64 of 64 tokens equal",
    evidence: dict[str, Any] | None = None,
) -> Verdict:
    return Verdict(
        attempt=number,
        outcome=outcome,
        method="exact",
        score=1.0 if outcome == "pass" else 0.0,
        reason=reason,
        evidence=evidence or {},
        replied=replied,
        tokens=tokens,
        tokens_per_s=speed,
    )


def step_closed(block: int) -> StepClosed:
    return StepClosed(block=Block(block))


def weights_set(weights: dict[int, int], block: int, proposal: int | None = None) -> WeightsSet:
    return WeightsSet(block=Block(block), version_key=0, weights=_pairs(weights), proposal=proposal)


def weights_not_set(reason: str, block: int, proposal: int | None = None) -> WeightsNotSet:
    return WeightsNotSet(block=Block(block), reason=reason, proposal=proposal)


def weights_proposed(weights: dict[int, int], block: int, commit: str | None = None) -> WeightsProposed:
    return WeightsProposed(block=Block(block), version_key=0, weights=_pairs(weights), commit=commit)


def head_anchored(interval: int, head: str, block: int) -> HeadAnchored:
    return HeadAnchored(interval=Interval(interval), head=head, block=Block(block))


def _pairs(weights: dict[int, int]) -> tuple[tuple[Uid, int], ...]:
    return tuple((Uid(uid), weight) for uid, weight in sorted(weights.items()))


def skipped(first: int, last: int) -> BlocksSkipped:
    return BlocksSkipped(first=Block(first), last=Block(last), reason="a step was running")


class History:
    """Events in their places, folded as they come."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.standings = Standings()

    @classmethod
    def begun(cls, *provers: Hotkey, profile: Profile = DEMO) -> History:
        """A log that is open, in interval 0, with provers holding UIDs from 0 on."""
        history = cls()
        history.add(log_opened(profile))
        history.add(*(joined(prover, uid) for uid, prover in enumerate(provers)))
        history.add(interval_opened(0))
        return history

    @property
    def head(self) -> Head:
        return Head(self.records[-1].seq, self.records[-1].hash) if self.records else EMPTY

    @property
    def next(self) -> int:
        """The number that the next attempt will have."""
        return self.head.seq + 1

    @property
    def events(self) -> list[Event]:
        return [record.event for record in self.records]

    def add(self, *events: Event) -> History:
        for record in chain_records(events, self.head):
            self.standings.apply(record)
            self.records.append(record)
        return self

    def step(self, block: int, *outcomes: tuple[Hotkey, Outcome], tokens: int = 64) -> History:
        """One block: an attempt for each outcome, all verdicts, the step's end."""
        first = self.next
        self.add(*(attempt(prover, block) for prover, _ in outcomes))
        for number, (_, outcome) in enumerate(outcomes, first):
            self.add(verdict(number, outcome, tokens=tokens))
        return self.add(step_closed(block))

    def turn(self, interval: int, block: int) -> History:
        """Close an interval and open the next."""
        return self.add(interval_closed(interval, block), interval_opened(interval + 1, block))


def history_with_routes(*provers: Hotkey) -> History:
    """A begun log whose provers share their model's inferences alike."""
    return History.begun(*provers).add(routes_set(*((uid, 1) for uid in range(len(provers)))))


def passes(prover: Hotkey, times: int) -> list[tuple[Hotkey, Outcome]]:
    return [(prover, "pass")] * times


def fails(prover: Hotkey, times: int) -> list[tuple[Hotkey, Outcome]]:
    return [(prover, "fail")] * times


def folded(records: list[Record]) -> Standings:
    standings = Standings()
    for record in records:
        standings.apply(record)
    return standings
