"""The desk, where users' inferences are taken and settled: what a gateway asks of a verifier.

An errand is one inference, sent to one prover:

1. ``take`` draws the prover, logs the attempt, and only then hands out the request. The draw, and whether the answer
   will be audited, follow from the attempt's number and the standings just before its record.
2. ``answered`` checks the answer's form and its text, keeps it if it is to be audited, and logs its receipt: only then
   may it be acknowledged. ``failed`` charges the prover, unless our own canary says that it was us. ``withdrawn`` ends
   what nobody is to blame for.

It decides by the log. In memory it holds only what a crash may lose: which errands are out (they are closed as
inconclusive at the next start) and how busy each prover is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from targon.engines import ModelIdentity
from targon.ledger import Answered, Attempt, Event, Route, Withdrawn
from targon.protocol import draws
from targon.protocol.audits import OWN_LATEST_BLOCKS, is_drawn
from targon.protocol.keys import public_key
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.orders import Order
from targon.protocol.primitives import AttemptNumber, Block, Digest, Hotkey
from targon.transport import Answer, TransportError
from targon.transport.errands import (
    AnswerRefused,
    Errand,
    Fault,
    FiledReceipt,
    NobodyFree,
    NotReady,
    OfferedModel,
    Settled,
    UnknownModel,
    WhyWithdrawn,
)
from targon.verifier.asking import Asker, Moment, attempt_event, salted
from targon.verifier.audits import Audits
from targon.verifier.book import Book
from targon.verifier.challenges import Challenge
from targon.verifier.delivery import inconclusive_delivery, undelivered
from targon.verifier.dialects import Offers, dialect_for
from targon.verifier.examination import Examination
from targon.verifier.filing import Filing
from targon.verifier.journal import Journal
from targon.verifier.loads import Loads
from targon.verifier.metrics import VerifierMetrics
from targon.verifier.moments import Moments
from targon.verifier.rates import AuditRates
from targon.verifier.retained import Content, ContentUnwritten
from targon.verifier.routes import BUSY_RETRY_S, Routes
from targon.verifier.sizes import Size, Sizes, check_order, sampling_of

ERRAND_S: Final = 900.0
"""An errand that nobody settled for so long was lost. No request takes half as long."""
NOT_READY_RETRY_S: Final = 5.0

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Out:
    """An errand that is out."""

    errand: Errand
    audited: bool
    own: bool
    since_s: float


class Desk:
    """See :class:`targon.gateway.ports.Desk`, which this is."""

    def __init__(
        self,
        *,
        journal: Journal,
        moments: Moments,
        offers: Offers,
        loads: Loads,
        routes: Routes,
        sizes: Sizes,
        asker: Asker,
        book: Book,
        audits: Audits,
        examination: Examination,
        filing: Filing,
        metrics: VerifierMetrics,
        identity: ModelIdentity,
        random_bytes: Callable[[int], bytes],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._moments = moments
        self._offers = offers
        self._loads = loads
        self._routes = routes
        self._sizes = sizes
        self._asker = asker
        self._book = book
        self._audits = audits
        self._examination = examination
        self._filing = filing
        self._metrics = metrics
        self._identity = identity
        self._random_bytes = random_bytes
        self._monotonic_s = monotonic_s
        self._rates = AuditRates()
        self._out: dict[int, _Out] = {}
        self._open = False

    def open(self) -> None:
        """From here on errands are given."""
        self._open = True

    def close(self) -> None:
        """From here on no errand is given, nor settled: what is out will be closed."""
        self._open = False
        self._out.clear()

    # -- asking ----------------------------------------------------------------------------------------

    def models(self) -> tuple[OfferedModel, ...]:
        """What users may ask for now."""
        who = self._identity
        return (OfferedModel(who.name, who.model_digest, who.context_length, self._sizes.default_tokens),)

    async def prompt_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Length of a prompt as the model reads it, in tokens."""
        return await self._sizes.prompt_tokens(messages)

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        """What is known of an answer; None: there is none of that id."""
        return await self._filing.find(receipt_id)

    # -- taking ----------------------------------------------------------------------------------------

    async def take(
        self, order: Order, *, instead_of: Errand | None = None, tried: Collection[Hotkey] = ()
    ) -> Errand:
        """Draw a prover for an order and log the attempt.

        Raises:
            NobodyFree, UnknownModel, Unservable, NotReady: nothing was logged.
        """
        self._audits.check_room()
        if order.model != self._identity.name:
            raise UnknownModel(order.model, (self._identity.name,))
        check_order(order)
        size = await self._sizes.measure(order)
        taken: list[tuple[_Out, Attempt]] = []

        def make(first: int) -> list[Event]:
            moment = self._moment()
            try:
                drawn = self._routes.draw(AttemptNumber(first), order.temperature, moment, tried)
            except NobodyFree:
                self._metrics.turned_away()
                raise
            turn, prover, dialect = drawn
            sampling = sampling_of(order, dialect, 0, size.max_tokens)
            before = None if instead_of is None else int(instead_of.request.attempt_number)
            route = Route(turn=turn, instead_of=before)
            out, attempt = self._errand(
                first, order.messages, sampling, prover, moment, size, order.seed, route
            )
            taken.append((out, attempt))
            return [attempt]

        return await self._log_attempt(make, taken)

    async def take_own(self, challenge: Challenge, prover: Hotkey, due: Block) -> Errand:
        """Log an inference of the verifier's own, for a given prover; its answer is always audited.

        Args:
            due: the block that drew it.

        Raises:
            NobodyFree, NotReady: nothing was logged; it is also too late, by blocks, to send it.
        """
        self._audits.check_room()
        await self._moments.reached(due)
        taken: list[tuple[_Out, Attempt]] = []

        def make(first: int) -> list[Event]:
            moment = self._moment()
            # an audit would find no draw that brought a later one
            if not due <= moment.block < due + OWN_LATEST_BLOCKS:
                raise NobodyFree(f"block {due} drew it, and the newest is {moment.block}", BUSY_RETRY_S)
            standing = self._journal.standings.prover(prover)
            offered = self._offers.of(prover, moment.block)
            serves = standing is not None and standing.uid is not None and prover in self._routes.axons
            if standing is None or not serves or standing.requests_left < 1:
                raise NobodyFree(f"{prover} doesn't serve, or is at its tier's limit", BUSY_RETRY_S)
            dialect = dialect_for(offered, standing.score, challenge.temperature)
            sampling = challenge.sampling(dialect)
            out, attempt = self._errand(first, challenge.messages, sampling, prover, moment)
            taken.append((out, attempt))
            return [attempt]

        return await self._log_attempt(make, taken)

    async def _log_attempt(
        self, make: Callable[[int], list[Event]], taken: list[tuple[_Out, Attempt]]
    ) -> Errand:
        try:
            await self._journal.append_made(make)
        except Exception:
            for out, _ in taken:
                self._loads.end(Hotkey(out.errand.request.prover))
            raise
        ((out, _),) = taken
        out.since_s = self._monotonic_s()
        self._out[out.errand.request.attempt_number] = out
        return out.errand

    def _moment(self) -> Moment:
        if not self._open:
            raise NotReady("the verifier is starting or stopping", NOT_READY_RETRY_S)
        return self._moments.now()

    def _errand(
        self,
        number: int,
        messages: tuple[ChatMessage, ...],
        sampling: Sampling,
        prover: Hotkey,
        moment: Moment,
        size: Size | None = None,
        user_seed: int | None = None,
        route: Route | None = None,
    ) -> tuple[_Out, Attempt]:
        """The errand of an attempt that is logged next.

        Args:
            size: of a user's; None: the verifier's own, whose size is calibrated.
        """
        attempt = AttemptNumber(number)
        salt = salted(self._random_bytes(32), user_seed)
        request = self._asker.request(messages, sampling, prover, attempt, moment, salt)
        digest = request.digest()
        audited = route is None or self._is_audited(attempt, prover, moment)
        counted = size is None or self._sizes.covers(request.sampling, size.prompt_tokens)
        axon = self._routes.axons[prover]
        exact = size.prompt_tokens if size is not None and size.exact else None
        out = _Out(
            Errand(request, digest, axon, exact), audited, own=route is None, since_s=self._monotonic_s()
        )
        event = attempt_event(
            request, moment.block, purpose="inference", digest=digest, counted=counted, route=route
        )
        self._loads.begin(prover)
        return out, event

    def _is_audited(self, attempt: AttemptNumber, prover: Hotkey, moment: Moment) -> bool:
        standing = self._journal.standings.prover(prover)
        draw = draws.audit_draw(moment.secret, attempt, public_key(prover))
        return standing is not None and is_drawn(draw, self._rates.of(standing))

    # -- settling --------------------------------------------------------------------------------------

    async def answered(self, errand: Errand, answer: Answer) -> Settled:
        """Check a whole answer's form and receipt, and log it; then it may be acknowledged.

        Raises:
            AnswerRefused: the prover was charged, and the errand has ended.
            NotReady: the errand had ended already, by a stop or by another call.
        """
        out = self._claim(errand)
        request, prover = errand.request, Hotkey(errand.request.prover)
        number = int(request.attempt_number)
        try:
            failure = await self._examination.look(request, answer.response)
            if failure is not None:
                await self._book.record(failure, None, prover)
                self._ended(out, "failed")
                self._metrics.judged(failure)
                self._loads.failed(prover)
                raise AnswerRefused(f"the prover's answer was refused: {failure.reason}")
            speed = answer.timing.tokens_per_s
            if out.audited:
                content = Content(request=request, response=answer.response, tokens_per_s=speed)
                await self._keep(content, out)

            def make(_: int) -> list[Event]:
                self._check_open(number)
                return [
                    Answered(
                        attempt=number,
                        block=max(self._journal.standings.block, request.block),
                        audited=out.audited,
                        tokens=len(answer.response.completion.token_ids),
                        tokens_per_s=speed,
                        receipt=answer.response.receipt,
                    )
                ]

            (record,) = await self._journal.append_made(make)
        except BaseException:
            self._put_back(out)
            raise
        self._ended(out, "answered")
        self._loads.answered(prover)
        if out.audited:
            self._audits.add(number, request.block)
        return Settled(errand.receipt_id, record.seq, record.hash)

    async def _keep(self, content: Content, out: _Out) -> None:
        """Keep what an audit needs. An answer that can't be kept is not given out: it could never be judged."""
        try:
            await self._audits.keep(content, own=out.own)
        except ContentUnwritten as error:
            request, why = out.errand.request, f"the verifier could not keep the answer: {error}"
            lost = inconclusive_delivery(request.attempt_number, request.sampling.dialect, why, replied=True)
            await self._book.record(lost, None, Hotkey(out.errand.request.prover))
            self._ended(out, "failed")
            self._metrics.judged(lost)
            raise NotReady("the verifier can't keep what an audit needs now", NOT_READY_RETRY_S) from error

    async def failed(self, errand: Errand, error: TransportError) -> Fault:
        """Log that no whole answer came; returns whose fault it was."""
        out = self._out.pop(errand.request.attempt_number, None)
        if out is None:
            return "nobody"
        prover, silence = Hotkey(errand.request.prover), undelivered(error, quote=out.own)
        try:
            if silence.full and self._loads.excused(
                prover, limited=silence.limited, retry_after_s=silence.retry_after_s
            ):
                await self._withdraw(out, "busy")
                return "nobody"
            if silence.unsupported:
                self._offers.doubt(prover)
            if silence.unservable and await self._asker.canary.refuses(errand.request):
                await self._withdraw(out, "unservable")
                return "user"
            waited_s = self._monotonic_s() - out.since_s
            verdict = await self._asker.canary.judge_silence(errand.request, silence, waited_s)
            if self._journal.standings.attempt(errand.request.attempt_number) is None:
                return "nobody"  # the verifier stopped meanwhile, and closed it
            await self._book.record(verdict, None, prover)
        except BaseException:
            self._put_back(out)
            raise
        self._ended(out, "failed")
        self._metrics.judged(verdict)
        if silence.full:
            self._loads.slow(prover)
        else:
            self._loads.failed(prover)
        return "prover" if verdict.outcome == "fail" else "ours"

    async def withdrawn(self, errand: Errand, why: WhyWithdrawn) -> None:
        """Log that the errand was ended by our side. One that has ended already stays as it is."""
        out = self._out.pop(errand.request.attempt_number, None)
        if out is None:
            return
        try:
            await self._withdraw(out, why)
        except BaseException:
            self._put_back(out)
            raise
        if why != "user_left":
            self._loads.slow(Hotkey(errand.request.prover))

    async def withdraw_lost(self) -> None:
        """End errands that nobody settled. They would keep the log from being published."""
        limit_s = self._monotonic_s() - ERRAND_S
        for out in [out for out in self._out.values() if out.since_s < limit_s]:
            logger.error("errand_lost", attempt=out.errand.request.attempt)
            await self.withdrawn(out.errand, "user_left")

    async def _withdraw(self, out: _Out, why: WhyWithdrawn) -> None:
        number = int(out.errand.request.attempt_number)

        def make(_: int) -> list[Event]:
            standings = self._journal.standings
            if number not in standings.open_attempts:
                return []
            return [Withdrawn(attempt=number, block=max(standings.block, out.errand.request.block), why=why)]

        await self._journal.append_made(make)
        self._ended(out, "withdrawn")

    def _claim(self, errand: Errand) -> _Out:
        out = self._out.pop(errand.request.attempt_number, None)
        if out is None:
            raise NotReady("the errand has ended already", NOT_READY_RETRY_S)
        return out

    def _check_open(self, number: int) -> None:
        if number not in self._journal.standings.open_attempts:
            raise NotReady("the verifier stopped before the answer could be logged", NOT_READY_RETRY_S)

    def _put_back(self, out: _Out) -> None:
        """An errand that could not be settled is out still, unless it was settled after all."""
        number = out.errand.request.attempt_number
        if number in self._journal.standings.open_attempts and self._open:
            self._out[number] = out

    def _ended(self, out: _Out, how: str) -> None:
        self._loads.end(Hotkey(out.errand.request.prover))
        self._metrics.inference(how)
