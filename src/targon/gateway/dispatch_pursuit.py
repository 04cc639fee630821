"""One order, and the errands that run for it: who is asked, who began first, who failed. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import anyio

from targon.gateway.dispatch_buffer import Bell, Buffer
from targon.gateway.dispatch_usage import PromptCount
from targon.gateway.errors import ServiceFailed
from targon.gateway.ports import Delta, Finished
from targon.protocol.messages import TokenEvent
from targon.protocol.orders import Order
from targon.protocol.primitives import Hotkey
from targon.transport import (
    BadResponse,
    Code,
    Disconnected,
    LocalFault,
    NotTheProver,
    Refused,
    TimedOut,
    TransportError,
    Unreachable,
)
from targon.transport.errands import AnswerRefused, DeskError, Errand, NobodyFree, Unservable, WhyWithdrawn

MAX_PROVERS = 3
"""Provers that one order may reach, one after another or side by side."""
AT_ONCE = 2
BUSY = frozenset(
    {
        Code.OVERLOADED,
        Code.QUEUE_FULL,
        Code.EVICTED,
        Code.WAITED_TOO_LONG,
        Code.TOO_MANY_CONCURRENT,
        Code.TOO_MANY_REQUESTS,
    }
)
"""A prover's refusals that mean: not now."""
CANT = frozenset({Code.TASK_REFUSED, Code.UNSUPPORTED_SAMPLING})
"""A prover's refusals that may be true of any prover: the desk knows."""
RETRY_S = 2.0
"""What a user is told to wait where no prover said how long."""

Failure = TransportError | DeskError

Because = Literal["order", "failover", "hedge"]
"""Why an errand is sent: it is the order's first, or one before it failed, or is slow."""


@dataclass(frozen=True, slots=True)
class Paused:
    """When we first stopped reading a prover's answer, for a user who did."""

    after_s: float
    """After the first token."""
    tokens: int
    """That had come by then."""


class Run:
    """One errand of an order, from before it is taken until it is settled."""

    __slots__ = (
        "because",
        "begun",
        "buffer",
        "end",
        "errand",
        "failure",
        "instead_of",
        "logprobs",
        "paused",
        "pursuit",
        "resumed_s",
        "scope",
        "texts",
        "waited_s",
        "why",
    )

    def __init__(
        self, pursuit: Pursuit, because: Because, instead_of: Errand | None, buffer_bytes: int
    ) -> None:
        self.pursuit = pursuit
        self.because: Because = because
        self.instead_of = instead_of
        self.errand: Errand | None = None
        """None while it is being taken, and where none could be."""
        self.begun = False
        self.buffer = Buffer(buffer_bytes, pursuit.bell)
        self.texts: list[str] = []
        self.logprobs: list[float] | None = []
        """All that were streamed; None once a token came without one."""
        self.paused: Paused | None = None
        """None while the prover was read from all the time."""
        self.waited_s = 0.0
        """For the user to read on: so long, in all, the prover was not read from."""
        self.resumed_s: float | None = None
        """When we read from the prover again after we had not for long, put off by the shorter waits since."""
        self.why: WhyWithdrawn | None = None
        """Why it is to be ended by our side."""
        self.failure: Failure | None = None
        self.end: Finished | ServiceFailed | None = None
        """How an answer that began has ended."""
        self.scope: anyio.CancelScope | None = None
        """Around the wait for the prover, while there is one."""

    def hang_up(self, why: WhyWithdrawn) -> None:
        """End it by our side, unless it has ended."""
        if self.why is None:
            self.why = why
            if self.scope is not None:
                self.scope.cancel()

    def take(self, event: TokenEvent) -> str | None:
        """Keep a piece of the answer for the user; returns what is wrong with it, if something is."""
        if event.logprobs is not None and len(event.logprobs) != len(event.token_ids):
            return f"{len(event.logprobs)} log-probabilities came with {len(event.token_ids)} tokens"
        if event.token_ids and self.logprobs is not None:
            if event.logprobs is None:
                self.logprobs = None
            else:
                self.logprobs.extend(event.logprobs)
        if event.token_ids or event.text:
            self.texts.append(event.text)
            self.buffer.put(Delta(event.text, event.token_ids, event.logprobs))
        return None

    def fail(self, failure: Failure) -> None:
        """Tell the order that nothing, or nothing more, comes of this errand."""
        self.failure = failure
        if self.begun:
            self.conclude(broke_off(failure))
        else:
            self.pursuit.bell.ring()

    def part(self) -> None:
        """Its task has ended: let go of the order, which holds it. Else only a search for cycles would free the two,
        and with them all that was said."""
        del self.pursuit

    def conclude(self, end: Finished | ServiceFailed) -> None:
        """Tell the order how the answer that it was given ended."""
        self.end = end
        self.pursuit.bell.ring()


class Pursuit:
    """An order while it is being fulfilled."""

    def __init__(self, order: Order, buffer_bytes: int) -> None:
        self.order = order
        self.bell = Bell()
        self.runs: list[Run] = []
        self.winner: Run | None = None
        self.prompt: PromptCount | None = None
        """Its prompt's length; None: it isn't being counted."""
        self.gone = False
        """Whether nobody waits for an answer any more."""
        self.stopped = False
        """Whether it is we who end it."""
        self.sent_s = 0.0
        """When the newest errand was sent for, by the event loop's clock."""
        self._buffer_bytes = buffer_bytes

    def another(self, because: Because) -> Run:
        """A further errand, to be taken and sent."""
        errands = [run.errand for run in self.runs if run.errand is not None]
        run = Run(self, because, errands[-1] if errands else None, self._buffer_bytes)
        self.runs.append(run)
        return run

    def won(self, run: Run) -> bool:
        """A run's first token came; whether it is the first of all. Then it alone answers."""
        if self.winner is not None or self.gone:
            return False
        run.begun = True
        self.winner = run
        self.bell.ring()
        return True

    def leave(self) -> None:
        """Nobody waits any more. Provers that were outrun are still held to their deadlines."""
        self.gone = True
        for run in self.runs:
            if self.winner is None or run is self.winner:
                run.hang_up("user_left")

    def stop(self) -> None:
        """We end it: everybody is hung up on."""
        self.stopped = True
        for run in self.runs:
            run.hang_up(self.why(run))
        self.bell.ring()

    def why(self, run: Run) -> WhyWithdrawn:
        """What a run is withdrawn for where it ends now."""
        return "user_left" if self.winner is None or run is self.winner else "outrun"

    @property
    def waiting(self) -> list[Run]:
        """Runs that may still begin to answer."""
        return [run for run in self.runs if run.failure is None and not run.begun]

    @property
    def tried(self) -> tuple[Hotkey, ...]:
        return tuple(run.errand.request.prover for run in self.runs if run.errand is not None)

    @property
    def asked(self) -> int:
        """Provers that were asked, or are about to be."""
        return sum(run.errand is not None or run.failure is None for run in self.runs)

    @property
    def refusal(self) -> DeskError | None:
        """The desk's own reason against a further errand; None: it may be asked for one.

        That nobody could be had to overtake a slow prover says nothing of later.
        """
        for run in self.runs:
            if isinstance(run.failure, Unservable):
                return run.failure
        last = self.runs[-1]
        return last.failure if last.because != "hedge" and isinstance(last.failure, DeskError) else None

    @property
    def hedged_in_vain(self) -> bool:
        """Whether nobody could be had to overtake a slow prover."""
        return any(
            run.because == "hedge" and run.errand is None and run.failure is not None for run in self.runs
        )

    def hopeless(self) -> DeskError | ServiceFailed:
        """Why no answer can be had: nobody is asked any more, and nobody will be."""
        refusal = self.refusal
        failures = [run.failure for run in self.runs if run.errand is not None and run.failure is not None]
        if refusal is not None and (not failures or not isinstance(refusal, NobodyFree)):
            return refusal
        if all(isinstance(why, Refused) and why.code in BUSY for why in failures):
            waits = [why.retry_after_s for why in failures if isinstance(why, Refused) and why.retry_after_s]
            return NobodyFree(
                f"no prover is free: {_provers(len(failures))} asked and took no more; try again",
                min(waits, default=RETRY_S),
            )
        words = "; ".join(dict.fromkeys(in_words(why) for why in failures))
        nobody = ", and nobody else is free" if refusal is not None else ""
        return ServiceFailed(
            f"no answer could be had: {_provers(len(failures))} asked ({words}){nobody}; try again",
            begun=False,
        )


def broke_off(failure: Failure) -> ServiceFailed:
    """An answer of which a part was given out ended badly."""
    if isinstance(failure, TransportError):
        what = f"the prover's answer broke off: {in_words(failure)}"
    elif isinstance(failure, AnswerRefused):
        what = f"the prover's answer was refused at its end: {in_words(failure)}"
    else:
        what = f"the answer broke off on our side: {failure}"
    return ServiceFailed(f"{what}. What was sent of it is not to be used; ask again", begun=True)


def in_words(failure: Failure) -> str:
    """What happened, for users: nothing that a prover wrote, and no addresses."""
    match failure:
        case LocalFault():
            return "our own machine could not send the request"
        case Unreachable():
            return "it could not be reached"
        case NotTheProver():
            return "somebody else answers at its address"
        case TimedOut(phase="first byte"):
            return f"it did not begin within {failure.after_s:g} s"
        case TimedOut(phase="between bytes"):
            return f"it sent nothing for {failure.after_s:g} s"
        case TimedOut():
            return f"it was not done within {failure.after_s:g} s"
        case Disconnected():
            return "its connection broke"
        case Refused():
            return f"it refused: {failure.code if failure.code in set(Code) else 'unknown'}"
        case BadResponse():
            return f"it broke the rules of the wire: {failure.reason}"
        case AnswerRefused():
            return "it is not what was asked for, or not what the prover signed"
        case _:
            return "the verifier is not ready"


def _provers(count: int) -> str:
    return "1 prover was" if count == 1 else f"{count} provers were"
