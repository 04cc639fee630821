"""One request out, one answer or one reason back."""

from __future__ import annotations

from dataclasses import dataclass

from targon.chain import Axon
from targon.ledger import Verdict
from targon.protocol.keys import Signer
from targon.protocol.messages import Dialect, GenerateRequest, GenerateResponse
from targon.transport import BadResponse, Code, LocalFault, NeuronClient, Refused, TimedOut, TransportError
from targon.verification import reason_about

STALE = (Code.STALE_BLOCK, Code.WRONG_BLOCK_HASH)
FULL = (
    Code.OVERLOADED,
    Code.QUEUE_FULL,
    Code.EVICTED,
    Code.WAITED_TOO_LONG,
    Code.TOO_MANY_CONCURRENT,
    Code.TOO_MANY_REQUESTS,
)
LIMITED = (Code.EVICTED, Code.TOO_MANY_CONCURRENT, Code.TOO_MANY_REQUESTS)
"""Of those, what a prover can't report as its capacity: limits of its gate, and callers with more stake."""
CODES = frozenset(Code)
UNSERVABLE = (Code.TASK_REFUSED, Code.UNSUPPORTED_SAMPLING)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A whole answer, not yet believed."""

    response: GenerateResponse
    tokens_per_s: float | None
    """Speed after the first token."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Why there is no whole answer."""

    reason: str
    replied: bool
    """Whether the prover sent anything at all."""
    stale: bool = False
    """Whether the prover says that the block we named is too old or unknown: our chain's word decides."""
    unsupported: bool = False
    """Whether the prover says that its engine can't sample so."""
    full: bool = False
    """Whether the prover says that it has too much to do."""
    limited: bool = False
    """Whether, of that, it names a limit that it doesn't report."""
    retry_after_s: float | None = None
    """When it says to try again."""
    unservable: bool = False
    """Whether the prover says that no engine could do it: our own engine's word decides."""
    ours: bool = False
    """Whether our own machine could not even try."""


async def deliver(
    client: NeuronClient, axon: Axon, request: GenerateRequest, signer: Signer
) -> Delivered | Undelivered:
    """Send a request, streamed, and collect the answer. Never raises for what the prover does."""
    try:
        answer = await client.generate(axon, request, signer)
    except TransportError as error:
        return undelivered(error)
    return Delivered(answer.response, answer.timing.tokens_per_s)


def undelivered(error: TransportError, *, quote: bool = True) -> Undelivered:
    """What an error says of prover and network.

    Args:
        quote: whether its reason may hold words of the prover's. Not where a user asked: a prover could put what the
            user said into them, and so into the log.
    """
    reason = str(error) if quote else _unquoted(error)
    if isinstance(error, Refused):
        return Undelivered(
            reason,
            replied=True,
            stale=error.code in STALE,
            unsupported=error.code == Code.UNSUPPORTED_SAMPLING,
            full=error.code in FULL,
            limited=error.code in LIMITED,
            retry_after_s=error.retry_after_s,
            unservable=error.code in UNSERVABLE,
        )
    return Undelivered(reason, replied=isinstance(error, BadResponse), ours=isinstance(error, LocalFault))


def _unquoted(error: TransportError) -> str:
    """An error in our own words alone."""
    if isinstance(error, Refused):
        code = error.code if error.code in CODES else "with a word that isn't ours"
        return f"{error.axon}: refused with HTTP {error.status} {code}"
    if isinstance(error, BadResponse):
        return f"{error.axon}: bad response ({error.reason})"
    if isinstance(error, TimedOut):
        return str(error)
    return f"{error.axon}: {type(error).__name__}"


def inconclusive_delivery(attempt: int, dialect: Dialect, reason: str, *, replied: bool) -> Verdict:
    """The verdict on an attempt of which nothing can be known, through our own fault."""
    return Verdict(
        attempt=attempt,
        outcome="inconclusive",
        method="delivery",
        score=0.0,
        reason=reason_about(dialect, reason)[:2000],
        replied=replied,
    )
