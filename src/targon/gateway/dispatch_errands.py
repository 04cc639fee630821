"""One errand: taken at the desk, sent to its prover, and settled, whoever has gone away meanwhile."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import anyio
import structlog

from targon.gateway.dispatch_hedging import FirstTokenTimes, Hedging
from targon.gateway.dispatch_metrics import DispatchMetrics
from targon.gateway.dispatch_pursuit import CANT, Paused, Pursuit, Run
from targon.gateway.dispatch_usage import PromptCount, estimated
from targon.gateway.errors import ServiceFailed
from targon.gateway.ports import Desk, Finished
from targon.protocol.keys import Signer
from targon.transport import (
    Answer,
    BadResponse,
    Code,
    Deadlines,
    Disconnected,
    LocalFault,
    NeuronClient,
    Refused,
    TimedOut,
    TransportError,
)
from targon.transport.errands import AnswerRefused, DeskError, Errand, NotReady, Unservable, WhyWithdrawn

Outcome = Answer | TransportError | WhyWithdrawn
"""How an errand ended, before the desk has heard of it."""

RETRY_S = 5.0
"""What a user is told to wait where it is our side that is out of order."""
EXCUSED_S = 1.0
"""Of reading, after a long wait for a user: what the prover sent before it gave us up is read out by then."""
PAUSED_S = 0.1
"""Of waits for a user: less changes nothing of a prover's speed that is worth a word."""
SPEED_SEEN_S = 0.5
"""What came within less shows no speed: it may have lain in one packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a dispatcher waits for whom, and how much it holds for a user who reads slowly."""

    prover: Deadlines = field(default_factory=Deadlines)
    """For one prover and one errand."""
    hedging: Hedging = field(default_factory=Hedging)
    failover_s: float = 60.0
    """From an order's begin: later than this nobody else is asked."""
    take_s: float = 15.0
    """For the desk to draw a prover and to log the attempt."""
    settle_s: float = 30.0
    """For the desk to log how an errand ended; whose fault a failure is may take it 10 s to find out."""
    reader_s: float = 20.0
    """For a user to read on, once ``buffer_bytes`` wait for him. Less than provers wait for us (30 s, ours)."""
    unread_s: float = 5.0
    """A prover that we did not read from for so long at once may give us up: it is not charged if it then does."""
    buffer_bytes: int = 1 << 18
    """Of one answer: what has come and was not read yet."""

    @property
    def first_token_s(self) -> float:
        """A prover that sends bytes and no token is given up after this."""
        return self.prover.first_byte_s + self.prover.between_bytes_s


class ErrandRunner:
    """Runs errands, each in a task of its own that lasts until the desk has it settled."""

    def __init__(
        self,
        *,
        desk: Desk,
        client: NeuronClient,
        signer: Signer,
        patience: Patience,
        times: FirstTokenTimes,
        metrics: DispatchMetrics,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._desk = desk
        self._client = client
        self._signer = signer
        self._patience = patience
        self._times = times
        self._metrics = metrics
        self._monotonic_s = monotonic_s
        self.beside: asyncio.TaskGroup | None = None
        """Runs what an errand needs beside its stream; None: it isn't open."""
        self._log = structlog.get_logger("targon.gateway")

    async def run(self, run: Run) -> None:
        """Take an errand, send it and settle it. It can't be cancelled: hang up (:meth:`Run.hang_up`) to end it."""
        if run.why is not None:
            self._tell(run)
            return
        loop, patience = asyncio.get_running_loop(), self._patience
        outcome: Outcome | None = None
        # One scope for both waits: scopes cost more than all else that is done here.
        last_s = loop.time() + patience.take_s + patience.settle_s
        with anyio.CancelScope(shield=True, deadline=last_s) as scope:
            late = loop.call_later(patience.take_s, self._late, run)
            run.errand = await self._take(run)
            late.cancel()
            if run.errand is None:
                return
            if run.why is None:
                run.scope, scope.deadline = scope, loop.time() + patience.first_token_s
                outcome = await self._ask(run, run.errand, scope)
        run.scope = None
        if run.errand is None:
            return
        if outcome is None:
            outcome = run.why or TimedOut(run.errand.axon, "first byte", patience.first_token_s)
        await self._settle(run, run.errand, outcome)

    def _late(self, run: Run) -> None:
        """The desk has given nothing yet. Nobody waits for it any more; what it gives still is withdrawn."""
        run.why = run.pursuit.why(run)
        run.fail(NotReady(f"the verifier's desk did not answer within {self._patience.take_s:g} s", RETRY_S))

    async def _take(self, run: Run) -> Errand | None:
        """An attempt that is being logged is waited for, even if nobody wants it any more."""
        pursuit = run.pursuit
        try:
            errand = await self._desk.take(pursuit.order, instead_of=run.instead_of, tried=pursuit.tried)
        except DeskError as error:
            run.fail(error)
            return None
        except Exception as error:  # noqa: BLE001 - one order's trouble must not end everybody's
            self._report("an errand could not be taken", error)
            run.fail(NotReady("the verifier's desk is out of order", RETRY_S))
            return None
        if run.because == "hedge":
            self._metrics.hedges.inc()
        elif run.because == "failover":
            self._metrics.failovers.inc()
        return errand

    async def _ask(self, run: Run, errand: Errand, scope: anyio.CancelScope) -> Outcome:
        """What came of asking the prover."""
        try:
            return await self._read(run, errand, scope)
        except TransportError as error:
            return "user_left" if self._excused(run, error) else error
        except Exception as error:  # noqa: BLE001 - as above
            self._report("an errand broke", error, attempt=errand.request.attempt)
            return LocalFault(errand.axon, f"an error of our own: {type(error).__name__}")

    async def _read(self, run: Run, errand: Errand, scope: anyio.CancelScope) -> Outcome:
        sent_s = self._monotonic_s()
        first_s = sent_s
        tokens = 0
        paused: Paused | None = None
        stream = self._client.stream(
            errand.axon, errand.request, self._signer, deadlines=self._patience.prover
        )
        async with aclosing(stream) as parts:
            async for part in parts:
                if isinstance(part, Answer):
                    return self._checked(
                        run, errand, part if run.paused is None else _unpaused(part, run.paused)
                    )
                if not run.begun:
                    if not part.token_ids:
                        if part.text:
                            return BadResponse(errand.axon, "inconsistent", "got text before the first token")
                        continue
                    first_s = self._monotonic_s()
                    self._times.saw(errand.request.model, first_s - sent_s)
                    if not run.pursuit.won(run):
                        return run.why or "outrun"
                    scope.deadline = math.inf
                    if errand.prompt_tokens is None:
                        self._count_prompt(run.pursuit)
                if (trouble := run.take(part)) is not None:
                    return BadResponse(errand.axon, "inconsistent", trouble)
                tokens += len(part.token_ids)
                if run.buffer.full:
                    paused = paused or Paused(self._monotonic_s() - first_s, tokens)
                    if not await self._room(run):
                        return "user_left"
                    if run.waited_s >= PAUSED_S:
                        run.paused = paused
        return BadResponse(errand.axon, "malformed", "the stream ended without its answer")

    async def _room(self, run: Run) -> bool:
        """Wait for the user to read on; whether he did in time."""
        since_s = self._monotonic_s()
        read_on = await run.buffer.room(self._patience.reader_s)
        waited_s = self._monotonic_s() - since_s
        run.waited_s += waited_s
        if waited_s >= self._patience.unread_s:
            run.resumed_s = since_s + waited_s
        elif run.resumed_s is not None:
            run.resumed_s += waited_s
        return read_on

    def _excused(self, run: Run, error: TransportError) -> bool:
        """Whether a prover failed because we did not read from it.

        A buffer that is full is no excuse: a prover can fill it itself, in one event. That the user took long is one.
        """
        if isinstance(error, TimedOut):
            return error.phase == "total" and run.waited_s >= self._patience.unread_s
        return (
            isinstance(error, Disconnected)
            and run.resumed_s is not None
            and self._monotonic_s() - run.resumed_s < EXCUSED_S
        )

    def _count_prompt(self, pursuit: Pursuit) -> None:
        """Have it counted while the answer is streamed; where we stop already, it is estimated."""
        if self.beside is not None:
            pursuit.prompt = PromptCount(pursuit.order.messages)
            self.beside.create_task(pursuit.prompt.run(self._desk))

    def _checked(self, run: Run, errand: Errand, answer: Answer) -> Answer | BadResponse:
        """An answer that says what was streamed; the client has compared the token ids already."""
        completion = answer.response.completion
        if not run.begun:
            return BadResponse(errand.axon, "inconsistent", "got an answer without a token")
        if "".join(run.texts) != completion.text:
            return BadResponse(errand.axon, "inconsistent", "streamed text that is not the text at the end")
        streamed, signed = run.logprobs, completion.logprobs
        if streamed is not None and signed is not None and tuple(streamed) != signed:
            return BadResponse(
                errand.axon, "inconsistent", "streamed log-probabilities that are not those that were signed"
            )
        return answer

    def _report(self, what: str, error: Exception, **fields: str) -> None:
        """Log what this code does not expect. An error's words are not logged: they may hold content."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        self._log.error(what, error=type(error).__name__, at=f"{last.filename}:{last.lineno}", **fields)

    async def _settle(self, run: Run, errand: Errand, outcome: Outcome) -> None:
        """Have the desk log how it ended. The user hears of a failure at once, of an answer once the log has it."""
        said = "unsettled"
        try:
            last_s = asyncio.get_running_loop().time() + self._patience.settle_s
            with anyio.CancelScope(shield=True, deadline=last_s) as scope:
                if isinstance(outcome, Answer):
                    said = await self._answered(run, errand, outcome)
                elif isinstance(outcome, Refused) and outcome.code in CANT and not run.begun:
                    # Others would refuse it as well, unless the desk says that it is this prover alone.
                    fault = await self._desk.failed(errand, outcome)
                    run.fail(_unservable(outcome) if fault == "user" else outcome)
                    said = "failed"
                elif isinstance(outcome, TransportError):
                    run.fail(outcome)
                    await self._desk.failed(errand, outcome)
                    said = "failed"
                else:
                    self._tell(run)
                    await self._desk.withdrawn(errand, outcome)
                    said = outcome
            if scope.cancelled_caught:
                raise TimeoutError
        except Exception as error:  # noqa: BLE001 - as above
            # The attempt stays open in the log, and is ended there when the verifier starts again.
            self._report("an errand was not settled", error, attempt=errand.request.attempt)
            if run.end is None and run.failure is None:
                run.fail(NotReady("the verifier could not log how it ended", RETRY_S))
        finally:
            self._metrics.outcomes.labels(said).inc()

    async def _answered(self, run: Run, errand: Errand, answer: Answer) -> str:
        try:
            settled = await self._desk.answered(errand, answer)
        except AnswerRefused as error:
            run.fail(error)
            return "refused"
        # From here on the answer is the user's: it is logged.
        prompt_tokens, prompt = errand.prompt_tokens, run.pursuit.prompt
        if prompt_tokens is None:
            messages = run.pursuit.order.messages
            prompt_tokens = estimated(messages) if prompt is None else await prompt.tokens()
        completion = answer.response.completion
        run.conclude(
            Finished(
                finish_reason=completion.finish_reason,
                prompt_tokens=prompt_tokens,
                completion_tokens=len(completion.token_ids),
                settled=settled,
                request=errand.request,
                response=answer.response,
            )
        )
        return "answered"

    def _tell(self, run: Run) -> None:
        """Tell a user who waits still, or again, that it is we who ended his answer."""
        if run.begun and run.end is None and not run.pursuit.stopped:
            run.conclude(
                ServiceFailed(
                    "the answer was read too slowly, and was broken off: more of it was waiting than is kept",
                    begun=True,
                )
            )
        else:
            run.fail(NotReady("the verifier is being stopped", RETRY_S))


def _unservable(refusal: Refused) -> Unservable:
    """What a prover refused, and the verifier's own engine as well, in words of our own."""
    if refusal.code == Code.TASK_REFUSED:
        return Unservable(
            "messages",
            "unsupported_value",
            "the model can't be asked this: its chat template refuses these messages, or they are too long for it; "
            "most models expect an optional system message first, and then user and assistant in turns",
        )
    return Unservable(
        "temperature", "unsupported_value", "there is no sampler for these parameters; see what is supported"
    )


def _unpaused(answer: Answer, paused: Paused) -> Answer:
    """The answer with the speed that was seen until we stopped reading; from then on it was the user's own."""
    timing = answer.timing
    seen = timing.first_token_s is not None and paused.after_s >= SPEED_SEEN_S
    return replace(
        answer,
        timing=replace(
            timing,
            last_token_s=(timing.first_token_s or 0.0) + paused.after_s if seen else None,
            tokens=paused.tokens if seen else timing.tokens,
        ),
    )
