"""One prover that serves users alone: its life under the rules, event by event.

Every event is one that a verifier writes, and goes through :class:`targon.ledger.Standings`; whether an inference is
audited is drawn as :mod:`targon.protocol.audits` says, from its interval's secret, by the standing just before it.
There are no challenges, and no inferences of the verifier's own. Only the records' hashes are made up: nothing follows
from them.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from targon.ledger import (
    Answered,
    Attempt,
    Event,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ModelEntry,
    ProverConvicted,
    ProverJoined,
    ProverStanding,
    Record,
    Route,
    RoutesSet,
    Standings,
    StepClosed,
    Verdict,
)
from targon.protocol import draws
from targon.protocol.audits import audit_rate, is_drawn
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.keys import hotkey_of
from targon.protocol.messages import Receipt, ReceiptBody
from targon.protocol.primitives import AttemptNumber, Block, Digest, Interval, Uid, u64_hex
from targon.protocol.profile import Profile
from targon.protocol.rewards import INFERENCE_PENALTY_FACTOR, PENALTY
from targon.protocol.schedule import BLOCK_SECONDS, interval_of
from targon.protocol.tiers import Tier
from targon.redteam.organic_answers import Served
from targon.verification import EvidenceState, advance

AUDIT_S: Final = 5.0
"""Seconds from a request to the verdict of its audit: what is served meanwhile was served."""

MODEL: Final = "model"
_ZEROS: Final = Digest("00" * 32)
_VERIFIER: Final = hotkey_of(bytes(32))

_RECEIPT: Final = Receipt(
    body=ReceiptBody(
        salt=_ZEROS,
        genesis=_ZEROS,
        netuid=4,
        verifier=_VERIFIER,
        prover=_VERIFIER,
        attempt="00" * 8,
        block=Block(0),
        request_digest=_ZEROS,
        completion_digest=_ZEROS,
        model=MODEL,
        model_digest=_ZEROS,
        issued_at=0,
    ),
    signature="00" * 64,
)
_ANSWERED: Final = Answered(attempt=0, block=Block(0), audited=False, tokens=0, receipt=_RECEIPT)


@dataclass(slots=True)
class Tally:
    """What happened since it began to be counted."""

    began_s: float = 0.0
    served: int = 0
    """Requests that it was sent."""
    audited: int = 0
    """How many of them were drawn for an audit."""
    verified: int = 0
    """Audits that were judged."""
    verified_tokens: int = 0
    failed: int = 0
    lost: float = 0.0
    """What failed inferences cost, in x: 5p each."""
    rates: float = 0.0
    """Sum of the audit rates."""
    first_failed: tuple[int, float] | None = None
    """(requests sent, seconds) when the first of them failed."""
    convicted: tuple[int, float, int, int] | None = None
    """(requests sent, seconds, audits judged, tokens verified) when it was convicted first."""


class Career:
    """One prover and its verifier's log.

    Args:
        name: names all its draws: equal names live equal lives.

    Attributes:
        tally: what happened since :meth:`begin`.
        now_s: seconds since the log was opened.
    """

    def __init__(self, name: str, profile: Profile) -> None:
        self.tally = Tally()
        self.now_s = 0.0
        self._name = name
        self._profile = profile
        self._key = hashlib.sha256(f"prover {name}".encode()).digest()
        self._hotkey = hotkey_of(self._key)
        self._standings = Standings()
        self._evidence = EvidenceState()
        self._log_e = 0.0
        self._waiting: deque[tuple[float, int, Served, Tier]] = deque()
        self._earned = False
        self._taken: set[tuple[str, int]] = set()
        self._append(
            LogOpened(
                spec_version=1,
                software="targon",
                genesis=_ZEROS,
                netuid=4,
                verifier=_VERIFIER,
                profile=self._profile,
                models=(ModelEntry(name=MODEL, model_digest=_ZEROS),),
            ),
            ProverJoined(block=Block(0), uid=Uid(1), hotkey=self._hotkey),
            self._opened(Interval(0), Block(0)),
            RoutesSet(block=Block(0), model=MODEL, shares=((Uid(1), 1),)),
        )

    @property
    def standing(self) -> ProverStanding:
        """The prover's."""
        standing = self._standings.prover(self._hotkey)
        assert standing is not None  # it joined
        return standing

    @property
    def weight(self) -> float:
        """The score that its weight is made of: 0 on probation."""
        standing = self.standing
        return 0.0 if standing.on_probation else standing.score

    def begin(self) -> None:
        """Count from here on."""
        self.tally = Tally(began_s=self.now_s)

    def serve(self, served: Served | None, at_s: float) -> bool:
        """Be sent a user's request, and answer it (None: don't); returns False if its tier's limit is reached, so that
        the request went to somebody else."""
        self.wait_until(at_s)
        before = self.standing
        if not before.requests_left:
            return False
        block = self._block()
        number = AttemptNumber(self._standings.head.seq + 1)
        counted = served is None or served.counted
        self._append(
            Attempt(
                block=block,
                purpose="inference",
                prover=before.hotkey,
                request_digest=_ZEROS,
                model=MODEL,
                dialect="targon/1",
                max_tokens=1 if served is None else served.asked,
                counted=counted,
                route=Route(turn=0),
            )
        )
        rate = audit_rate(before.tier, on_probation=before.on_probation, log_e=self._log_e)
        audited = is_drawn(draws.audit_draw(self._secret(), number, self._key), rate)
        self.tally.served += 1
        self.tally.rates += rate
        if served is None or served.broken:
            method = "delivery" if served is None else "structure"
            self._settle(number, counted, "fail", method, replied=served is not None)
            return True
        self._append(self._answered(number, block, served, audited=audited))
        self._earned |= not audited
        if audited:
            self.tally.audited += 1
            self._waiting.append((at_s + AUDIT_S, number, served, before.tier))
        return True

    def wait_until(self, at_s: float) -> None:
        """Let time pass: audits are judged, blocks and intervals end."""
        while self._waiting and self._waiting[0][0] <= at_s:
            due_s, number, served, tier = self._waiting.popleft()
            self._pass_blocks(due_s)
            self._judge(number, served, tier)
        self._pass_blocks(at_s)

    # -- events --------------------------------------------------------------------------------------

    def _judge(self, number: int, served: Served, tier: Tier) -> None:
        self.tally.verified += 1
        self.tally.verified_tokens += served.tokens
        self._settle(number, served.counted, served.outcomes[tier], "divergence", replied=True, served=served)

    def _settle(
        self,
        number: int,
        counted: bool,
        outcome: str,
        method: str,
        *,
        replied: bool,
        served: Served | None = None,
    ) -> None:
        evidence = served.evidence if served is not None and counted else None
        if evidence is not None and not self._was_taken(served):
            self._evidence = advance(self._evidence, *evidence)
            self._log_e = self._evidence.log_e
        self._append(
            Verdict.model_validate(
                {
                    "attempt": number,
                    "outcome": outcome,
                    "method": method,
                    "score": float(outcome == "pass"),
                    "reason": "",
                    "replied": replied,
                    "tokens": 0 if evidence is None else evidence[0].positions,
                    "evidence_after": None if evidence is None else self._evidence.to_json(),
                }
            )
        )
        if counted and outcome != "inconclusive":
            self._earned = True
        if counted and outcome == "fail":
            self.tally.failed += 1
            self.tally.lost += PENALTY * INFERENCE_PENALTY_FACTOR
            if self.tally.first_failed is None:
                self.tally.first_failed = (self.tally.served, self.now_s - self.tally.began_s)
        if self._evidence.convicted_at is not None:
            self._convict(number)

    def _was_taken(self, served: Served | None) -> bool:
        """Whether evidence took this very answer before, and it is one that it takes once."""
        if served is None or not served.true:
            return False
        key = (served.source, served.number)
        known = key in self._taken
        self._taken.add(key)
        return known

    def _convict(self, number: int) -> None:
        state, tally = self._evidence, self.tally
        assert state.convicted_at is not None
        self._append(
            ProverConvicted(
                block=self._block(),
                prover=self.standing.hotkey,
                attempt=number,
                log_e=max(state.log_peak, LOG_CONVICTION),
                tokens=state.convicted_at,
                completions=state.completions,
                calibration=_ZEROS,
            )
        )
        self._evidence, self._log_e = EvidenceState(), 0.0
        if tally.convicted is None:
            passed_s = self.now_s - tally.began_s
            tally.convicted = (tally.served, passed_s, tally.verified, tally.verified_tokens)

    def _answered(self, number: int, block: Block, served: Served, *, audited: bool) -> Answered:
        # changed without checks, which are costly: nothing here comes from outside
        named = {"attempt": u64_hex(number), "prover": self._hotkey, "block": block}
        receipt = _RECEIPT.model_copy(update={"body": _RECEIPT.body.model_copy(update=named)})
        changed = {
            "attempt": number,
            "block": block,
            "audited": audited,
            "tokens": served.tokens,
            "receipt": receipt,
        }
        return _ANSWERED.model_copy(update=changed)

    def _pass_blocks(self, at_s: float) -> None:
        """Close the steps and intervals that end until then. Blocks in which nothing was earned move no score."""
        length_s = self._profile.interval_blocks * BLOCK_SECONDS
        while True:
            turn_s = (math.floor(self.now_s / length_s) + 1) * length_s
            step_s = (math.floor(self.now_s / BLOCK_SECONDS) + 1) * BLOCK_SECONDS
            next_s = step_s if self._earned else turn_s
            if next_s > at_s:
                break
            if self._earned:
                self._append(StepClosed(block=self._block()))
                self._earned = False
            self.now_s = next_s
            if next_s == turn_s:
                self._turn()
        self.now_s = max(self.now_s, at_s)

    def _turn(self) -> None:
        block = self._block()
        interval = interval_of(block, self._profile.interval_blocks)
        closed = Interval(interval - 1)
        self._append(
            IntervalClosed(interval=closed, block=block, secret=self._secret_of(closed).hex()),
            self._opened(interval, block),
        )

    def _opened(self, interval: Interval, block: Block) -> IntervalOpened:
        return IntervalOpened(
            interval=interval, block=block, commitment=draws.commitment(self._secret_of(interval))
        )

    def _secret_of(self, interval: Interval) -> bytes:
        return draws.interval_secret(self._name.encode(), bytes(32), 4, interval)

    def _secret(self) -> bytes:
        interval = self._standings.interval
        assert interval is not None  # there is always one open
        return self._secret_of(interval)

    def _block(self) -> Block:
        return Block(int(self.now_s // BLOCK_SECONDS))

    def _append(self, *events: Event) -> None:
        for event in events:
            head = self._standings.head
            seq = head.seq + 1
            self._standings.apply(Record(seq, head.hash, Digest(f"{seq:064x}"), event))


def shuffled(items: Sequence[Served], rng: np.random.Generator) -> Iterator[Served]:
    """Without end, and each as often as any other: once in every turn, in another order each time."""
    while True:
        yield from (items[place] for place in rng.permutation(len(items)))
