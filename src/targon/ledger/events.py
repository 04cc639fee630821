"""The events of the log, version 1. What is not here did not happen.

A verifier's life in events::

    log_opened
    ( prover_joined | prover_left )*           whenever the chain's list of neurons changes
    interval_opened                            commits to the interval's secret
      ( calibration_adopted                    what verdicts are judged by from here on
      | attempt*  ( verdict  prover_convicted? )*  step_closed
                                               one step: challenges out, answers judged, scores moved
      | routes_set                             how inferences are shared out among provers from here on
      | attempt ( answered verdict? | verdict | withdrawn )  prover_convicted?
                                               one inference, beside the steps: asked, then answered whole and, if
                                               it was drawn for an audit, judged; or failed; or nobody's fault
      | blocks_skipped                         blocks that passed while a step was running
      | head_anchored                          the interval's head stands on chain
      | inputs_committed                       an oracle's commitment, as it is seen, once; before an interval, too
      | relies_on                              where private inputs come from, from here on; before an interval, too
      | oracle_faulted                         an oracle was caught; before an interval, too
      | weights_proposed                       before they are sent to the chain, or committed to
      | weights_set | weights_not_set )*       what came of them
    interval_closed                            reveals the secret; tiers move
    interval_opened …

An attempt is an event before it is sent, so that a crash can lose an answer but never the fact that one
was asked for. Content never stands here, only its digest.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from targon.ledger.errors import LedgerError
from targon.ledger.relying import InputsCommitted, OracleFaulted, ReliesOn
from targon.protocol.messages import MAX_SAFE_INTEGER, Dialect, Message, Receipt
from targon.protocol.primitives import Block, Hex32, HotkeyField, Interval, Uid
from targon.protocol.profile import Profile

EVENT_VERSION: Final = 1

Outcome = Literal["pass", "fail", "inconclusive"]
"""``fail`` is the prover's fault; ``inconclusive`` is ours or the network's, and counts for nothing."""

Purpose = Literal["challenge", "inference"]

MAX_OBSERVED: Final = 4_000_000
"""Characters: the longest completion's observations fit."""

_Int = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Block = Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Interval = Annotated[Interval, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Uid = Annotated[Uid, Field(ge=0, lt=65_536)]
_Text = Annotated[str, Field(max_length=2_000)]


class ModelEntry(Message):
    """One model of the subnet's list."""

    name: str
    model_digest: Hex32


class LogOpened(Message):
    """The first event: whose log this is, of which network, under which rules."""

    kind: Literal["log_opened"] = "log_opened"
    version: Literal[1] = EVENT_VERSION
    spec_version: Literal[1]
    software: str
    genesis: Hex32
    netuid: _Int
    verifier: HotkeyField
    profile: Profile
    models: tuple[ModelEntry, ...]


class CalibrationAdopted(Message):
    """From here on, verdicts about a model are judged by this calibration."""

    kind: Literal["calibration_adopted"] = "calibration_adopted"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    model: str
    model_digest: Hex32
    calibration: Hex32
    """Digest of the file, which is its name."""


class ProverJoined(Message):
    """A hotkey holds a UID now. One that held a UID before comes back with what it had."""

    kind: Literal["prover_joined"] = "prover_joined"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    uid: _Uid
    hotkey: HotkeyField


class ProverLeft(Message):
    """A hotkey holds no UID any more."""

    kind: Literal["prover_left"] = "prover_left"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    uid: _Uid
    hotkey: HotkeyField


class IntervalOpened(Message):
    """An interval begins. Its record's hash is the log head that every request of the interval carries."""

    kind: Literal["interval_opened"] = "interval_opened"
    version: Literal[1] = EVENT_VERSION
    interval: _Interval
    block: _Block
    commitment: Hex32
    """SHA-256 of the secret from which the interval's seeds and choices are drawn."""


class IntervalClosed(Message):
    """An interval ends: its secret is revealed, and tiers move."""

    kind: Literal["interval_closed"] = "interval_closed"
    version: Literal[1] = EVENT_VERSION
    interval: _Interval
    block: _Block
    secret: Hex32


class Route(Message):
    """How a user's request came to its prover (:mod:`targon.protocol.routing`)."""

    turn: Annotated[int, Field(ge=0, lt=1_024)]
    """Which draw picked it: the draws before this one fell on provers that were busy, at their limit, or had been
    asked already."""
    instead_of: _Int | None = None
    """The attempt before it, where the same request of a user's was sent to another prover first."""


class RoutesSet(Message):
    """From here on a model's inferences are drawn among these provers, by these shares."""

    kind: Literal["routes_set"] = "routes_set"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    model: str
    shares: tuple[tuple[_Uid, Annotated[int, Field(ge=1, le=1_000_000)]], ...]
    """(UID, share) in UID order."""


class Attempt(Message):
    """A request is about to be sent. The record's ``seq`` is the attempt's number."""

    kind: Literal["attempt"] = "attempt"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    purpose: Purpose
    prover: HotkeyField
    request_digest: Hex32
    model: str
    dialect: Dialect
    max_tokens: _Int
    counted: bool = True
    """False: no calibration covers what was asked, so that the work is served and shown, but earns nothing and
    costs nothing, like ``native`` work."""
    route: Route | None = None
    """Of a user's request; None: a challenge, or an inference of the verifier's own."""


class Answered(Message):
    """An inference was answered whole, and in the form that was asked for. Whoever asked has the answer.

    Without an audit that settles it, as a success. With one, its verdict does.
    """

    kind: Literal["answered"] = "answered"
    version: Literal[1] = EVENT_VERSION
    attempt: _Int
    block: _Block
    audited: bool
    """Whether it was drawn for an audit, which was settled before the answer was seen
    (:mod:`targon.protocol.audits`)."""
    tokens: _Int
    """Tokens of the completion."""
    tokens_per_s: Annotated[float, Field(ge=0.0)] | None = None
    """Speed after the first token; None where it could not be measured."""
    receipt: Receipt


class Withdrawn(Message):
    """An inference ended before its answer did, by nobody's fault: it counts for nothing."""

    kind: Literal["withdrawn"] = "withdrawn"
    version: Literal[1] = EVENT_VERSION
    attempt: _Int
    block: _Block
    why: Literal["user_left", "outrun", "busy", "unservable"]
    """``user_left``: who had asked hung up. ``outrun``: another prover, asked for the same, began to answer first.
    ``busy``: the prover refused more work than it had said that it takes at once, or than its gate lets in.
    ``unservable``: it refused what the verifier's own engine refuses as well."""


class Verdict(Message):
    """What came of an attempt, and why."""

    kind: Literal["verdict"] = "verdict"
    version: Literal[1] = EVENT_VERSION
    attempt: _Int
    outcome: Outcome
    method: Annotated[str, Field(max_length=32)]
    """What decided: ``delivery`` (there was no whole answer), ``structure``, ``exact``, …"""
    score: Annotated[float, Field(ge=0.0, le=1.0)]
    """Similarity."""
    reason: _Text
    """One sentence for the prover's operator."""
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
    """The numbers behind the reason: a small JSON object, whose keys the method documents."""
    replied: bool
    """Whether the prover answered at all, be it with an error."""
    tokens: _Int = 0
    """Tokens of the completion that were verified, with evidence: what counts towards the probation."""
    tokens_per_s: Annotated[float, Field(ge=0.0)] | None = None
    """Speed after the first token; None where it could not be measured."""
    receipt: Receipt | None = None
    observed: Annotated[str, Field(max_length=MAX_OBSERVED)] | None = None
    """What was observed at each position (``targon.verification.observations.pack``): with the calibration, all
    that the evidence follows from."""
    evidence_after: dict[str, JsonValue] | None = None
    """The prover's evidence, this completion included (``targon.verification.EvidenceState``): whoever goes on
    from the log begins here. None: the completion left no evidence."""


class ProverConvicted(Message):
    """The evidence about a prover reached its bound with the verdict that stands just before."""

    kind: Literal["prover_convicted"] = "prover_convicted"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    prover: HotkeyField
    attempt: _Int
    """The attempt whose verdict carried the evidence over the bound."""
    log_e: float
    """Natural logarithm of the evidence at its highest, ln(1/α) or more."""
    tokens: _Int
    """Verified tokens until then, since the evidence began."""
    completions: _Int
    calibration: Hex32
    """By which the last of them was judged."""
    looks_like: Annotated[str, Field(max_length=200)] = ""
    """What the evidence fits best, in words; empty: not said."""


class StepClosed(Message):
    """Every attempt of a block has its verdict: scores take their step."""

    kind: Literal["step_closed"] = "step_closed"
    version: Literal[1] = EVENT_VERSION
    block: _Block


class BlocksSkipped(Message):
    """Blocks that passed while a step was running (or while the verifier was not), both ends included."""

    kind: Literal["blocks_skipped"] = "blocks_skipped"
    version: Literal[1] = EVENT_VERSION
    first: _Block
    last: _Block
    reason: _Text


class HeadAnchored(Message):
    """The open interval's log head stands on chain, in the verifier's name."""

    kind: Literal["head_anchored"] = "head_anchored"
    version: Literal[1] = EVENT_VERSION
    interval: _Interval
    head: Hex32
    """Hash of the interval's ``interval_opened`` record."""
    block: _Block
    """The block that it stands in."""


class WeightsProposed(Message):
    """These weights are about to be sent to the chain. The record's ``seq`` is the proposal's number."""

    kind: Literal["weights_proposed"] = "weights_proposed"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    version_key: _Int
    weights: tuple[tuple[_Uid, Annotated[int, Field(ge=1, le=65_535)]], ...]
    """(UID, weight) in UID order, zeros left out."""
    commit: Hex32 | None
    """With commit-reveal, what is put on chain first; None: they are set outright."""


class WeightsSet(Message):
    """Weights stand on chain: they were read back."""

    kind: Literal["weights_set"] = "weights_set"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    version_key: _Int
    weights: tuple[tuple[_Uid, Annotated[int, Field(ge=1, le=65_535)]], ...]
    """(UID, weight) in UID order, zeros left out."""
    proposal: _Int | None = None
    """The proposal that they are; None: there was none, in logs of older software."""


class WeightsNotSet(Message):
    """It was time to set weights, and none were set."""

    kind: Literal["weights_not_set"] = "weights_not_set"
    version: Literal[1] = EVENT_VERSION
    block: _Block
    reason: _Text
    proposal: _Int | None = None
    """The proposal that was given up; None: there was nothing to propose."""


Event = (
    LogOpened
    | CalibrationAdopted
    | ProverJoined
    | ProverLeft
    | IntervalOpened
    | IntervalClosed
    | RoutesSet
    | Attempt
    | Answered
    | Withdrawn
    | Verdict
    | ProverConvicted
    | StepClosed
    | BlocksSkipped
    | HeadAnchored
    | InputsCommitted
    | ReliesOn
    | OracleFaulted
    | WeightsProposed
    | WeightsSet
    | WeightsNotSet
)

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class UnknownEvent(LedgerError):
    """Bytes that are no event of a version this software knows."""


def parse_event(data: bytes | str) -> Event:
    """Parse an event from JSON.

    Raises:
        UnknownEvent: if it is of no known kind and version, or has other fields than its kind has.
    """
    try:
        return _EVENT.validate_json(data, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(step) for step in problem["loc"]) or "event"
        raise UnknownEvent(f"{where}: {problem['msg']}") from error
