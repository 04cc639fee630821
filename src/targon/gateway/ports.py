"""What a gateway needs of others: a verifier's desk, and (for its own front) somebody who fulfils orders."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from targon.protocol.messages import ChatMessage, FinishReason, GenerateRequest, GenerateResponse
from targon.protocol.orders import Order
from targon.protocol.primitives import Digest, Hotkey, TokenId
from targon.transport import Answer, TransportError
from targon.transport.errands import Errand, Fault, FiledReceipt, OfferedModel, Settled, WhyWithdrawn


class Desk(Protocol):
    """A verifier's desk, where errands are taken and settled. Every method that writes returns once the log has it.

    Errors are those of :mod:`targon.transport.errands`.
    """

    def models(self) -> tuple[OfferedModel, ...]:
        """What users may ask for now."""
        ...

    async def take(
        self, order: Order, *, instead_of: Errand | None = None, tried: Collection[Hotkey] = ()
    ) -> Errand:
        """Draw a prover for an order and log the attempt.

        Args:
            instead_of: the errand that this one is to overtake or to replace.
            tried: provers that were asked for this order already.

        Raises:
            NobodyFree, UnknownModel, Unservable, NotReady: nothing was logged.
        """
        ...

    async def answered(self, errand: Errand, answer: Answer) -> Settled:
        """Check a whole answer's form and receipt, and log it; then it may be acknowledged.

        Raises:
            AnswerRefused: the prover was charged, and the errand has ended.
        """
        ...

    async def failed(self, errand: Errand, error: TransportError) -> Fault:
        """Log that no whole answer came; returns whose fault it was."""
        ...

    async def withdrawn(self, errand: Errand, why: WhyWithdrawn) -> None:
        """Log that the errand was ended by our side."""
        ...

    async def prompt_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Length of a prompt as the model reads it, in tokens."""
        ...

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        """What is known of an answer; None: there is none of that id."""
        ...


@dataclass(frozen=True, slots=True)
class Began:
    """A prover began to answer: from here on nobody else will be asked."""

    receipt_id: Digest


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer, as it came."""

    text: str
    token_ids: tuple[TokenId, ...]
    logprobs: tuple[float, ...] | None
    """Natural-log probability of each token before temperature; None where the prover gave none."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole, checked, and stands in the log."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    settled: Settled
    request: GenerateRequest
    response: GenerateResponse


class Orders(Protocol):
    """Somebody who fulfils orders: the dispatcher in this process, or one behind a socket.

    One conformance suite runs against every adapter.
    """

    def models(self) -> tuple[OfferedModel, ...]:
        """What users may ask for now."""
        ...

    def fulfil(self, order: Order) -> AsyncGenerator[Began | Delta | Finished, None]:
        """One ``Began``, any number of ``Delta``, one ``Finished``. Closing the generator hangs up.

        Raises:
            DeskError: nobody can serve it; nothing was begun.
            ServiceFailed: an answer broke off or was refused; it is not to be used.
        """
        ...

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        """What is known of an answer; None: there is none of that id."""
        ...
