"""What the fold knows: of one prover, and of everything. The fold changes it; others get frozen views."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple

from targon.ledger.events import Attempt, LogOpened, Outcome
from targon.ledger.port import GENESIS_HASH
from targon.ledger.relying import OracleState, ReliesOn
from targon.protocol.primitives import Block, Digest, Hotkey, Interval, Uid
from targon.protocol.tiers import TIERS, Tier

BEFORE_ANY: Final = Block(-1)
"""The block of a log that speaks of none yet."""


class LastVerdict(NamedTuple):
    """The newest verdict of a prover, whatever its outcome."""

    seq: int
    """Its record's place in the log."""
    outcome: Outcome
    method: str
    reason: str


class Conviction(NamedTuple):
    """The newest conviction of a prover."""

    seq: int
    """Its record's place in the log."""
    block: Block
    log_e: float
    tokens: int
    completions: int


@dataclass(slots=True)
class ProverState:
    """What the fold keeps of one prover. The fields are those of :class:`ProverStanding`."""

    hotkey: Hotkey
    uid: Uid | None
    last_uid: Uid
    tier: Tier = Tier.BRONZE
    attempts: int = 0
    successes: int = 0
    replies: int = 0
    inconclusive: int = 0
    sent: int = 0
    total_successes: int = 0
    fallen_from: Tier | None = None
    score: float = 0.0
    verified_tokens: int = 0
    settled_attempts: int = 0
    settled_successes: int = 0
    last_verdict: LastVerdict | None = None
    evidence: dict[str, Any] | None = None
    convictions: int = 0
    last_conviction: Conviction | None = None
    first_conviction: Conviction | None = None
    native: int = 0
    native_replies: int = 0
    inferences: int = 0
    audits: int = 0
    withdrawn: int = 0


@dataclass(frozen=True, slots=True)
class ProverStanding:
    """One prover's standing, as of one record of the log."""

    hotkey: Hotkey
    uid: Uid | None
    """None: it holds none any more, and keeps its standing for when it comes back."""
    last_uid: Uid
    """The UID that it holds, or held last."""
    tier: Tier
    attempts: int
    """Attempts that ended in ``pass`` or ``fail`` since its counters began (see ``tiers.settle``)."""
    successes: int
    replies: int
    inconclusive: int
    sent: int
    """Requests sent to it this interval, which its tier limits; open and inconclusive ones too."""
    total_successes: int
    fallen_from: Tier | None
    score: float
    """EMA of what it earned, >= 0."""
    verified_tokens: int
    """Tokens of its passed completions that left evidence, since it joined or was convicted."""
    on_probation: bool
    settled_attempts: int
    """Attempts of the last interval's end at which its tier was judged; 0 if it never was."""
    settled_successes: int
    last_verdict: LastVerdict | None
    evidence: dict[str, Any] | None
    """The evidence about it (``targon.verification.EvidenceState``); None: it begins with the next completion."""
    convictions: int
    """How often it was convicted."""
    last_conviction: Conviction | None
    first_conviction: Conviction | None
    native: int
    """Ended attempts, ever, at work that counts for nothing else (``native``, or beyond what is calibrated);
    whatever came of them."""
    native_replies: int
    """How many of them it answered, be it with an error."""
    inferences: int
    """Inferences that it answered whole this interval."""
    audits: int
    """How many of those were drawn for an audit."""
    withdrawn: int
    """Inferences of its, ever, that ended before their answer did, by nobody's fault."""

    @property
    def success_rate(self) -> Fraction | None:
        """Successes among attempts of the running counters, else of the last settled; None before any."""
        if self.attempts:
            return Fraction(self.successes, self.attempts)
        if self.settled_attempts:
            return Fraction(self.settled_successes, self.settled_attempts)
        return None

    @property
    def requests_left(self) -> int:
        """How many more requests it may receive this interval."""
        return max(0, TIERS[self.tier].request_limit - self.sent)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Weights that were about to be sent to the chain, and whose fate is open."""

    block: Block
    version_key: int
    weights: dict[Uid, int]
    commit: Digest | None
    releases: int
    """Records before this one may be published once its fate is known."""


@dataclass(slots=True)
class State:
    """Everything that the fold knows; what a snapshot saves."""

    seq: int = -1
    """The last record applied; -1: none yet."""
    hash: Digest = GENESIS_HASH
    opened: LogOpened | None = None
    block: Block = BEFORE_ANY
    """The newest block that the log speaks of (weights apart: the chain sets them in a block of its own)."""
    interval: Interval | None = None
    """The interval that is open."""
    last_interval: Interval | None = None
    """The newest interval that was opened."""
    interval_head: Digest = GENESIS_HASH
    """Hash of the newest ``interval_opened`` record."""
    interval_seq: int = 0
    """Place of that record."""
    anchored: Interval | None = None
    """The newest interval whose head stands on chain."""
    anchored_block: Block = BEFORE_ANY
    commitment: Digest = GENESIS_HASH
    provers: dict[Hotkey, ProverState] = field(default_factory=dict)
    uids: dict[Uid, Hotkey] = field(default_factory=dict)
    """Who holds which UID now."""
    open_attempts: dict[int, Attempt] = field(default_factory=dict)
    """Attempts without a verdict, by number."""
    under_audit: dict[int, Attempt] = field(default_factory=dict)
    """Inferences that were answered and await the verdict of their audit, by number."""
    routes: dict[str, dict[Uid, int]] = field(default_factory=dict)
    """By model, the shares by which inferences are drawn among provers."""
    served: dict[Hotkey, list[float]] = field(default_factory=dict)
    """What each prover earned (x of each inference) since the last step closed."""
    earned: dict[Block, dict[Hotkey, list[float]]] = field(default_factory=dict)
    """What each prover earned (x of each request) in each block whose step is still open."""
    last_step: Block = BEFORE_ANY
    speeds: dict[str, list[float]] = field(default_factory=dict)
    """tokens/s of this interval's served requests, by model."""
    medians: dict[str, float] = field(default_factory=dict)
    """Median of the previous interval's, by model."""
    weights: dict[Uid, int] = field(default_factory=dict)
    """The weights that were set last."""
    weights_block: Block | None = None
    """The block in which they were set."""
    weights_refusal: str | None = None
    """Why none could be set since; None if that did not happen."""
    proposals: dict[int, Proposal] = field(default_factory=dict)
    """Proposed weights whose fate is open, by number."""
    proposed_block: Block = BEFORE_ANY
    """The block of the newest proposal."""
    settled: dict[int, int] = field(default_factory=dict)
    """What proposals release whose fate is known, by number, where that of an older one is not."""
    released: int = 0
    """Records before this one may be published: the weights that followed from them are no secret any more."""
    last_skipped: Block = BEFORE_ANY
    blocks_skipped: int = 0
    calibrations: dict[str, Digest] = field(default_factory=dict)
    """By model, the calibration that its verdicts are judged by."""
    oracles: dict[Hotkey, OracleState] = field(default_factory=dict)
    relies_on: ReliesOn | None = None
    """The newest; None: the log never spoke of it, and the verifier has but its own."""
    just_judged: tuple[int, Hotkey] | None = None
    """The attempt, and the prover, of the newest verdict: what a conviction must follow from."""
