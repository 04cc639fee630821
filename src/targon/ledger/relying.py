"""What a log says of oracles: what they committed to, what the verifier relies on, and what they were caught at.

Commitments are logged before their first block: that is what shows, later and to anyone, that an oracle didn't choose
its private inputs once it could know whose they would be. Tiers, scores and weights don't hang on any of this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, Self

from pydantic import Field, model_validator

from targon.ledger.errors import InvalidHistory
from targon.protocol.messages import MAX_SAFE_INTEGER, Message
from targon.protocol.primitives import Block, Hotkey, HotkeyField
from targon.protocol.private_inputs import Commitment, PrivateInput

KEPT_COMMITMENTS: Final = 3
"""Of each oracle: the running period's, the next one's, and one for good measure."""
MAX_ORACLES: Final = 16

_Int = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Block = Annotated[Block, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Oracles = Annotated[tuple[HotkeyField, ...], Field(max_length=MAX_ORACLES)]

Caught = Literal["equivocated", "unchained", "misdealt", "uncommitted", "unsigned", "malformed"]
"""What an oracle was caught at.

- ``equivocated``: it signed two commitments that contradict each other. Both stand in the log: that is proof.
- ``unchained``: it signed a commitment that doesn't follow those before. They stand in the log.
- ``misdealt``: it gave another private input than the place's, or another's, under its signature.
- ``uncommitted``: it gave one that its commitment doesn't hold.
- ``unsigned``: what it gave isn't signed by it.
- ``malformed``: what it gave is none of what was asked for.
"""


class InputsCommitted(Message):
    """The verifier saw this commitment in this block, for the first time."""

    kind: Literal["inputs_committed"] = "inputs_committed"
    version: Literal[1] = 1
    block: _Block
    """Before the commitment's first block, it shows that it was made beforehand."""
    commitment: Commitment


class ReliesOn(Message):
    """From here on private inputs, and queries and scores where the verifier has no engine, come from these."""

    kind: Literal["relies_on"] = "relies_on"
    version: Literal[1] = 1
    block: _Block
    inputs: _Oracles = ()
    """Empty: the verifier's own source."""
    reference: _Oracles = ()
    """Empty: the verifier's own engine."""
    agreeing: Annotated[int, Field(ge=0, le=MAX_ORACLES)] = 0
    """How many of ``reference`` have to agree; 0: it is the verifier's own."""
    why: Annotated[str, Field(max_length=200)]

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if not min(1, len(self.reference)) <= self.agreeing <= len(self.reference):
            raise ValueError(
                f"agreeing: got {self.agreeing}, expected one of the {len(self.reference)} at least, or 0"
            )
        return self


class OracleFaulted(Message):
    """An oracle was caught at something."""

    kind: Literal["oracle_faulted"] = "oracle_faulted"
    version: Literal[1] = 1
    block: _Block
    oracle: HotkeyField
    what: Caught
    detail: Annotated[str, Field(max_length=500)]
    given: PrivateInput | None = None
    """The private input that it was caught by; None: it was another thing."""


class OracleFault(NamedTuple):
    """The newest thing that an oracle was caught at."""

    seq: int
    """Its record's place in the log."""
    block: Block
    what: Caught


@dataclass(slots=True)
class OracleState:
    """What the fold keeps of one oracle."""

    commitments: list[Commitment] = field(default_factory=list)
    """The newest that were logged, oldest first."""
    seen: list[Block] = field(default_factory=list)
    """The block in which each of them was."""
    fault: OracleFault | None = None


class _State(Protocol):
    oracles: dict[Hotkey, OracleState]
    relies_on: ReliesOn | None
    opened: Any
    block: Block


def _reach(s: _State, block: Block) -> None:
    s.block = max(s.block, block)


def inputs_committed(s: _State, record: Any, event: InputsCommitted) -> None:  # noqa: ANN401 - as every rule
    body = event.commitment.body
    if (body.genesis, body.netuid) != (s.opened.genesis, s.opened.netuid):
        raise InvalidHistory(
            record.seq,
            f"got a commitment for subnet {body.netuid} of {body.genesis[:12]}…, expected one for subnet "
            f"{s.opened.netuid} of {s.opened.genesis[:12]}…",
        )
    oracle = s.oracles.setdefault(body.oracle, OracleState())
    if any(kept.body == body for kept in oracle.commitments):
        raise InvalidHistory(
            record.seq, f"commitment {body.number} of {body.oracle} is logged a second time, expected once"
        )
    oracle.commitments = [*oracle.commitments, event.commitment][-KEPT_COMMITMENTS:]
    oracle.seen = [*oracle.seen, event.block][-KEPT_COMMITMENTS:]
    _reach(s, event.block)


def relies_on(s: _State, record: Any, event: ReliesOn) -> None:  # noqa: ANN401 - as every rule
    for hotkey in event.inputs:
        if hotkey not in s.oracles or not s.oracles[hotkey].commitments:
            raise InvalidHistory(
                record.seq, f"got private inputs from {hotkey}, expected a commitment of its before"
            )
    s.relies_on = event
    _reach(s, event.block)


def oracle_faulted(s: _State, record: Any, event: OracleFaulted) -> None:  # noqa: ANN401 - as every rule
    oracle = s.oracles.setdefault(event.oracle, OracleState())
    oracle.fault = OracleFault(record.seq, event.block, event.what)
    _reach(s, event.block)
