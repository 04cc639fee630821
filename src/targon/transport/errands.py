"""Between whoever serves users and whoever keeps the log: one request to one prover, and what came of it.

A gateway *takes* an errand at a verifier's desk, which draws the prover and logs the attempt first; it sends the
request, and tells the desk how it ended. Each errand ends exactly once: answered, failed or withdrawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from targon.protocol.countersignatures import Countersignature
from targon.protocol.messages import GenerateRequest, Receipt
from targon.protocol.primitives import Block, Digest
from targon.protocol.verdicts import Outcome
from targon.transport.errors import Endpoint

WhyWithdrawn = Literal["user_left", "outrun", "busy", "unservable"]
"""As in the log's ``withdrawn`` event."""


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that users may ask for."""

    name: str
    model_digest: Digest
    context_length: int
    """Most tokens of prompt and completion together."""
    default_tokens: int
    """Longest answer to an order that doesn't say how long it may be."""


@dataclass(frozen=True, slots=True)
class Errand:
    """An attempt that is logged, and may now be sent, once, to one prover."""

    request: GenerateRequest
    receipt_id: Digest
    """Digest of the request: known before there is an answer, and named by the receipt."""
    axon: Endpoint
    prompt_tokens: int | None
    """Length of the prompt as the model reads it; None: not counted yet (:meth:`Desk.prompt_tokens`)."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An answer that stands in the log: it may be acknowledged."""

    receipt_id: Digest
    record: int
    """Place of the record that holds the receipt."""
    record_hash: Digest


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What an audit found."""

    outcome: Outcome
    method: str
    score: float
    reason: str
    record: int
    """Place of the verdict's record in the log."""


@dataclass(frozen=True, slots=True)
class FiledReceipt:
    """A receipt as the verifier keeps it."""

    receipt: Receipt
    countersignature: Countersignature
    block: Block
    """In which the answer was logged."""
    verdict: AuditVerdict | None
    """None: it was not audited, is not judged yet, or its verdict is not published yet; nobody is told which."""


Fault = Literal["prover", "ours", "nobody", "user"]
"""Whose an undelivered answer is. ``nobody``: the prover refused more than it takes at once. ``user``: it refused what
the verifier's own engine refuses as well, so that it is no use to ask another."""


class DeskError(Exception):
    """The desk gives no errand, or takes an answer for none.

    ``DeskError``
    ├── ``NobodyFree``     no prover can take the request now
    ├── ``UnknownModel``   nobody serves that model here
    ├── ``Unservable``     the request can't be served as it is
    ├── ``NotReady``       the verifier can't log attempts now
    └── ``AnswerRefused``  the answer is not what was asked for; the prover is charged
    """


class NobodyFree(DeskError):
    """No prover can take the request now: all are busy, at their limit, or were asked already.

    Attributes:
        retry_after_s: when it may be worth to try again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class UnknownModel(DeskError):
    """Nobody serves that model here.

    Attributes:
        model: what was asked for.
        models: what is served.
    """

    def __init__(self, model: str, models: tuple[str, ...]) -> None:
        self.model = model
        self.models = models
        super().__init__(f"got model {model!r}, expected one of: {', '.join(models) or 'none is served now'}")


class Unservable(DeskError):
    """The request can't be served as it is: too long for the model's context, say.

    Attributes:
        parameter: which part of the request.
        code: a word for programs: ``context_length_exceeded``, ``unsupported_value``.
    """

    def __init__(self, parameter: str, code: str, message: str) -> None:
        self.parameter = parameter
        self.code = code
        super().__init__(message)


class NotReady(DeskError):
    """The verifier can't log attempts now: it starts, stops, or its chain or log is away.

    Attributes:
        retry_after_s: when it may be worth to try again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class AnswerRefused(DeskError):
    """The answer is not what was asked for, or not what the prover signed. The prover is charged."""
