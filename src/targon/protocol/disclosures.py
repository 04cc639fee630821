"""What a verifier tells of itself, and of a prover to that prover: ``GET /v1/status`` and ``GET /v1/standing``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from targon.protocol.messages import MAX_SAFE_INTEGER, Message
from targon.protocol.primitives import SPEC_VERSION, Block, Hex32, HotkeyField, Interval, Uid
from targon.protocol.tiers import Tier
from targon.protocol.verdicts import Outcome
from targon.protocol.weights import MAX_WEIGHT

_Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Block = Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Interval = Annotated[Interval, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Uid = Annotated[Uid, Field(ge=0, lt=65_536)]
_Name = Annotated[str, Field(min_length=1, max_length=256)]

TIER_NAMES = tuple(tier.label for tier in Tier)


def _check_tier(name: str | None) -> str | None:
    if name is not None and name not in TIER_NAMES:
        raise ValueError(f"got {name[:80]!r}, expected one of {', '.join(TIER_NAMES)}")
    return name


class NamedModel(Message):
    """A model that provers are verified against."""

    name: _Name
    model_digest: Hex32


class AnchoredInterval(Message):
    """An interval whose log head stands on chain."""

    interval: _Interval
    block: _Block
    """The block that it stands in."""


class VerifierStatus(Message):
    """``GET /v1/status`` of a verifier: what it says of itself."""

    spec_version: Literal[1] = SPEC_VERSION
    software: _Name
    hotkey: HotkeyField
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    genesis: Hex32
    """Hash of the chain's first block: which network this is."""
    models: tuple[NamedModel, ...]
    block: _Block
    """The chain's newest block that it has seen."""
    interval: _Interval | None
    """The open interval of its log; null between two."""
    released: _Count
    """How many records of its log it hands out; later ones tell of weights that are still to be set or revealed."""
    released_head: Hex32 | None
    """Hash of the last of them, record ``released - 1``; null while there is none."""
    anchored: AnchoredInterval | None
    """The newest interval whose log head stands on chain; null before any."""
    draining: bool
    """Whether it was asked to stop."""


class CommittedPeriod(Message):
    """A period of an oracle's that isn't over yet."""

    number: _Count
    first: _Block
    last: _Block
    places: _Count
    """Private inputs of each of its verifiers in each block."""


class OracleStatus(Message):
    """``GET /v1/status`` of an oracle: what it says of itself."""

    spec_version: Literal[1] = SPEC_VERSION
    software: _Name
    hotkey: HotkeyField
    netuid: Annotated[int, Field(ge=0, lt=65_536)]
    genesis: Hex32
    """Hash of the chain's first block: which network this is."""
    block: _Block
    """The chain's newest block that it has seen."""
    periods: tuple[CommittedPeriod, ...]
    """Those that are committed to and not over, oldest first."""
    source: _Name
    """What its private inputs are drawn from, in its operator's words."""
    model: NamedModel | None = None
    """What light clients may have generated and scored; null: nothing."""


class JudgedLast(Message):
    """A prover's newest verdict."""

    seq: _Count
    """Its record's place in the verifier's log."""
    outcome: Outcome
    method: Annotated[str, Field(max_length=32)]
    reason: Annotated[str, Field(max_length=2_000)]


class ConvictedLast(Message):
    """A prover's newest conviction."""

    seq: _Count
    block: _Block
    tokens: _Count
    """Verified tokens that it took."""
    completions: _Count
    log_e: float
    """Natural logarithm of the evidence."""


class ProverOwnStanding(Message):
    """``GET /v1/standing``: what a verifier knows of the prover that asks, as of now. Nobody else is told."""

    spec_version: Literal[1] = SPEC_VERSION
    verifier: HotkeyField
    prover: HotkeyField
    block: _Block
    """The newest block that the verifier's log speaks of."""
    uid: _Uid | None
    """Null: it holds none any more, and keeps its standing for when it comes back."""
    tier: str
    fallen_from: str | None
    """The tier that it returns to when it answers again after an outage; null: none."""
    attempts: _Count
    """Attempts that ended in pass or fail since the counters began."""
    successes: _Count
    replies: _Count
    inconclusive: _Count
    """Attempts that ended by the verifier's or the network's trouble; they count for nothing."""
    native: _Count
    """Judged attempts, ever, in dialects that count for nothing."""
    sent: _Count
    """Requests sent to it this interval."""
    requests_left: _Count
    """How many more its tier lets it receive this interval."""
    settled_attempts: _Count
    """Attempts of the last interval's end at which its tier was judged; 0 if it never was."""
    settled_successes: _Count
    total_successes: _Count
    success_rate: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Of the running counters, else of the last settled; null before any."""
    score: Annotated[float, Field(ge=0.0)]
    verified_tokens: _Count
    on_probation: bool
    probation_tokens: _Count
    """Verified tokens at which probation ends."""
    convictions: _Count
    last_conviction: ConvictedLast | None
    last_verdict: JudgedLast | None
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] | None
    """What its UID got of the weights that were set last; null where none were, or it holds no UID."""
    weights_block: _Block | None
    """The block in which they were set."""
    medians: dict[_Name, Annotated[float, Field(ge=0.0)]]
    """Tokens/s that speeds are compared with, by model: the medians of the previous interval."""

    _check_tiers = field_validator("tier", "fallen_from")(_check_tier)
