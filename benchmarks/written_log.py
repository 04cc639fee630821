"""A log of any length as a verifier with a gateway writes it: real draws, receipts, evidence and weights. Only answers
and what was observed in them are made up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from bittensor.keyfiles import Keypair

from targon.ledger import (
    Answered,
    Attempt,
    CalibrationAdopted,
    Event,
    HeadAnchored,
    IntervalClosed,
    IntervalOpened,
    LogOpened,
    ModelEntry,
    ProverConvicted,
    ProverJoined,
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
from targon.ledger.port import EMPTY, Head
from targon.protocol import draws, receipts, routing
from targon.protocol.audits import audit_rate, is_drawn, own_inference_due
from targon.protocol.conviction import LOG_CONVICTION
from targon.protocol.keys import Signer, public_key
from targon.protocol.messages import Receipt, ReceiptBody
from targon.protocol.primitives import AttemptNumber, Block, Hotkey, Interval, Uid, u64_hex
from targon.protocol.profile import DEMO, Profile
from targon.protocol.weights import NoWeights
from targon.verification import (
    Bets,
    Calibration,
    EvidenceState,
    Observations,
    advance,
    bets_of,
    load_calibration,
)
from targon.verification.shipped import SHIPPED

MODEL = "SmolLM2-135M-Instruct"
MASTER = hashlib.sha256(b"the verifier's master secret").digest()
NETUID = 4
GENESIS = "22" * 32


def calibration() -> Calibration:
    """The one that verdicts are judged by: a shipped one."""
    return load_calibration(min(SHIPPED.glob("*.json")))


@dataclass
class Life:
    """A verifier's life, written event by event.

    Args:
        provers: how many there are; each is asked in turn as the draws fall.
        per_block: users' requests in each block.
        signed: whether receipts are really signed; a benchmark that reads millions does without.
        salt_of_commit: commits to weights as a chain with commit-reveal wants them; None: they are set outright.
    """

    verifier: Keypair
    provers: list[Keypair]
    per_block: int = 20
    challenges: int = 4
    profile: Profile = DEMO
    signed: bool = True
    weights_every: int = 10
    seed: int = 1
    standings: Standings = field(default_factory=Standings)
    records: list[Record] = field(default_factory=list)
    keep: bool = True

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._head: Head = EMPTY
        self._calibration = calibration()
        self._bets: Bets = bets_of(self._calibration.bands[0])
        self._states: dict[Hotkey, EvidenceState] = {}
        self._keys = {
            Hotkey(each.ss58_address): public_key(Hotkey(each.ss58_address)) for each in self.provers
        }
        self._by_hotkey = {Hotkey(each.ss58_address): each for each in self.provers}
        self._uids = {Hotkey(each.ss58_address): Uid(uid) for uid, each in enumerate(self.provers, 1)}
        self._by_uid = {uid: hotkey for hotkey, uid in self._uids.items()}
        self._block = Block(0)
        self._secret = b""
        self._open: list[tuple[int, Hotkey, bool]] = []
        self._observed = [self._observation(place) for place in range(8)]

    # -- writing -----------------------------------------------------------------------------------------

    def add(self, *events: Event) -> list[Record]:
        """Append and fold."""
        made = chain_records(events, self._head)
        for record in made:
            self.standings.apply(record)
        self._head = Head(made[-1].seq, made[-1].hash)
        if self.keep:
            self.records += made
        return made

    @property
    def next(self) -> AttemptNumber:
        return AttemptNumber(self._head.seq + 1)

    def begin(self) -> list[Record]:
        """The log's first records, the first interval included."""
        self._secret = self._secret_of(Interval(0))
        return self.add(
            LogOpened(
                spec_version=1,
                software="targon",
                genesis=GENESIS,
                netuid=NETUID,
                verifier=Hotkey(self.verifier.ss58_address),
                profile=self.profile,
                models=(ModelEntry(name=MODEL, model_digest="cd" * 32),),
            ),
            CalibrationAdopted(
                block=Block(0), model=MODEL, model_digest="cd" * 32, calibration=self._calibration.digest()
            ),
            *(ProverJoined(block=Block(0), uid=uid, hotkey=hotkey) for hotkey, uid in self._uids.items()),
            IntervalOpened(interval=Interval(0), block=Block(0), commitment=draws.commitment(self._secret)),
            RoutesSet(
                block=Block(0),
                model=MODEL,
                shares=routing.shares({uid: 4 + uid % 5 for uid in self._uids.values()}),
            ),
        )

    def blocks(self, count: int) -> Iterator[list[Record]]:
        """The records of so many more blocks, each block's as they are written."""
        for _ in range(count):
            yield self._one_block()

    def live(self, blocks: int) -> Life:
        """Begin, and live for some blocks."""
        if self._head == EMPTY:
            self.begin()
        for _ in self.blocks(blocks):
            pass
        return self

    def _secret_of(self, interval: Interval) -> bytes:
        return draws.interval_secret(MASTER, bytes.fromhex(GENESIS), NETUID, interval)

    # -- one block -----------------------------------------------------------------------------------------

    def _one_block(self) -> list[Record]:
        self._block = block = Block(self._block + 1)
        made: list[Record] = []
        length = self.profile.interval_blocks
        if block % length == 0:
            interval = Interval(block // length)
            closed = IntervalClosed(interval=Interval(interval - 1), block=block, secret=self._secret.hex())
            self._secret = self._secret_of(interval)
            made += self.add(
                closed,
                IntervalOpened(interval=interval, block=block, commitment=draws.commitment(self._secret)),
            )
            made += self.add(HeadAnchored(interval=interval, head=self.standings.interval_head, block=block))
        made += self._challenge(block)
        for _ in range(self.per_block):
            made += self._inference(block)
        made += self._own(block)
        made += self.add(StepClosed(block=block))
        if block % self.weights_every == 0:
            made += self._weights(block)
        return made

    def _challenge(self, block: Block) -> list[Record]:
        left = [each for each in self._uids if self._left(each) > 0]
        chosen = sorted(left, key=lambda each: draws.selection_rank(self._secret, block, self._keys[each]))
        chosen = chosen[: self.challenges]
        first = self.next
        made = (
            self.add(*(self._attempt(prover, block, "challenge", None) for prover in chosen))
            if chosen
            else []
        )
        for number, prover in enumerate(chosen, first):
            made += self._judge(number, prover)
        return made

    def _left(self, prover: Hotkey) -> int:
        standing = self.standings.prover(prover)
        return 0 if standing is None else standing.requests_left

    def _inference(self, block: Block) -> list[Record]:
        number = self.next
        shares = list(self.standings.routes(MODEL).items())
        for turn in range(routing.MAX_TURNS):
            uid = routing.pick(draws.route_draw(self._secret, number, turn), shares)
            prover = self._by_uid[uid]
            if self._left(prover) > 0:
                break
        else:
            return []
        audited = self._is_audited(number, prover)
        made = self.add(self._attempt(prover, block, "inference", Route(turn=turn)))
        chance = self._random.random()
        if chance < 0.005:
            return [*made, *self.add(Withdrawn(attempt=number, block=block, why="user_left"))]
        if chance < 0.007:
            return [*made, *self.add(self._verdict(number, "fail", "delivery", replied=False))]
        return [*made, *self._answer(number, prover, block, audited=audited)]

    def _is_audited(self, number: AttemptNumber, prover: Hotkey) -> bool:
        standing = self.standings.prover(prover)
        assert standing is not None
        state = self._states.get(prover)
        rate = audit_rate(
            standing.tier, on_probation=standing.on_probation, log_e=0.0 if state is None else state.log_e
        )
        return is_drawn(draws.audit_draw(self._secret, number, self._keys[prover]), rate)

    def _own(self, block: Block) -> list[Record]:
        made: list[Record] = []
        for prover, key in self._keys.items():
            standing = self.standings.prover(prover)
            assert standing is not None
            draw = draws.own_inference_draw(self._secret, block, key)
            if not own_inference_due(
                draw, audits=standing.audits, interval_blocks=self.profile.interval_blocks
            ):
                continue
            if standing.requests_left > 0:
                number = self.next
                made += self.add(self._attempt(prover, block, "inference", None))
                made += self._answer(number, prover, block, audited=True)
        return made

    def _weights(self, block: Block) -> list[Record]:
        weights = self.standings.weights()
        if isinstance(weights, NoWeights):
            return self.add(WeightsNotSet(block=block, reason=weights.reason))
        pairs = tuple(sorted(weights.items()))
        number = self.next
        proposed = WeightsProposed(block=block, version_key=0, weights=pairs, commit=None)
        made = self.add(proposed)
        return [*made, *self.add(WeightsSet(block=block, version_key=0, weights=pairs, proposal=number))]

    # -- events ----------------------------------------------------------------------------------------------

    def _attempt(self, prover: Hotkey, block: Block, purpose: str, route: Route | None) -> Attempt:
        return Attempt(
            block=block,
            purpose="challenge" if purpose == "challenge" else "inference",
            prover=prover,
            request_digest=hashlib.sha256(b"request %d" % self._random.getrandbits(64)).hexdigest(),
            model=MODEL,
            dialect="targon/1",
            max_tokens=64,
            route=route,
        )

    def _answer(self, number: int, prover: Hotkey, block: Block, *, audited: bool) -> list[Record]:
        event = Answered(
            attempt=number,
            block=block,
            audited=audited,
            tokens=64,
            tokens_per_s=round(self._random.uniform(30.0, 60.0), 6),
            receipt=self._receipt(number, prover, block),
        )
        made = self.add(event)
        return [*made, *self._judge(number, prover)] if audited else made

    def _receipt(self, number: int, prover: Hotkey, block: Block) -> Receipt:
        attempt = self.standings.attempt(number)
        assert attempt is not None
        body = ReceiptBody(
            salt=hashlib.sha256(b"salt %d" % number).hexdigest(),
            genesis=GENESIS,
            netuid=NETUID,
            verifier=Hotkey(self.verifier.ss58_address),
            prover=prover,
            attempt=u64_hex(number),
            block=block,
            request_digest=attempt.request_digest,
            completion_digest=hashlib.sha256(b"completion %d" % number).hexdigest(),
            model=MODEL,
            model_digest="cd" * 32,
            issued_at=1_790_000_000 + block * 12,
        )
        signature = "00" * 64
        if self.signed:
            signer: Signer = self._by_hotkey[prover]
            signature = bytes(signer.sign(receipts.signed_bytes(body))).hex()
        return Receipt(body=body, signature=signature)

    def _judge(self, number: int, prover: Hotkey) -> list[Record]:
        observed = self._observed[self._random.randrange(len(self._observed))]
        after = advance(self._states.get(prover, EvidenceState()), observed, self._bets)
        self._states[prover] = after
        verdict = self._verdict(number, "pass", "divergence", replied=True).model_copy(
            update={
                "score": 1.0 - int(observed.mismatched.sum()) / observed.positions,
                "tokens": observed.positions,
                "tokens_per_s": 41.5,
                "receipt": self._receipt(number, prover, self._block),
                "observed": observed.pack(),
                "evidence_after": after.to_json(),
            }
        )
        made = self.add(verdict)
        if after.convicted_at is None:
            return made
        del self._states[prover]
        return made + self.add(
            ProverConvicted(
                block=self._block,
                prover=prover,
                attempt=number,
                log_e=max(after.log_peak, LOG_CONVICTION),
                tokens=after.convicted_at,
                completions=after.completions,
                calibration=self._calibration.digest(),
                looks_like=after.looks_like,
            )
        )

    def _verdict(self, number: int, outcome: str, method: str, *, replied: bool) -> Verdict:
        passed = outcome == "pass"
        return Verdict(
            attempt=number,
            outcome="pass" if passed else "fail",
            method=method,
            score=0.984375 if passed else 0.0,
            reason="63 of 64 tokens are as drawn" if passed else "no answer came within 60 s",
            evidence={"agreement": 0.984375, "mean_margin": 0.000732, "positions": 64} if passed else {},
            replied=replied,
        )

    def _observation(self, place: int) -> Observations:
        numbers = np.random.default_rng(place)
        gaps = numbers.exponential(1.2, 64)
        mismatched = (gaps < 0.03) & (numbers.random(64) < 0.3)
        masses = np.round(numbers.uniform(0.05, 0.3, 64) * 1024) / 1024
        observed = Observations(
            gaps=gaps,
            mismatched=mismatched,
            unsure=np.zeros(64, dtype=bool),
            tail_mass=masses,
            in_tail=numbers.random(64) < masses,
            rivals=np.full(64, int("f" * 7, 16), dtype=np.uint32),
            claimed_rivals=np.zeros(64, dtype=np.uint8),
        )
        return Observations.unpack(observed.pack())
