"""A block's challenges: made, and each logged and sent at its moment, judged, and written down.

A challenge is logged just before it is sent, as users' inferences are, and names the block that is the newest then.
Were a block's challenges logged together, provers would know them: by attempt numbers lower than those of inferences
that came before, and by a block that is not the newest any more (``benchmarks/telltale.py`` shows it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import structlog

from targon.chain import Axon, SubnetInfo
from targon.engines import EngineError
from targon.ledger import Attempt
from targon.protocol.messages import Dialect, GenerateRequest
from targon.protocol.primitives import AttemptNumber, Block, Hotkey
from targon.protocol.tiers import TIERS, Tier
from targon.transport.errands import NotReady
from targon.verification.querying import QueryWriter
from targon.verifier.asking import Asker, attempt_event
from targon.verifier.book import Book
from targon.verifier.challenges import Challenge, challenge_delay_s, make_challenge
from targon.verifier.dialects import Offers, dialect_for
from targon.verifier.journal import Journal
from targon.verifier.loads import Loads
from targon.verifier.metrics import VerifierMetrics
from targon.verifier.moments import Moments
from targon.verifier.ports import PrivateInputs, PrivateInputUnavailable
from targon.verifier.retained import Content
from targon.verifier.settings import VerifierSettings

logger = structlog.get_logger(__name__)

SENDING_SPAN = 1.0
"""Blocks over which a step's requests are sent. Users' requests come at any moment; over half a block alone, moments
would tell (docs/challenges.md)."""


class Challenger:
    """Challenges provers.

    Args:
        keep: keeps an answer, for whoever checks an exported log.
    """

    def __init__(
        self,
        *,
        moments: Moments,
        journal: Journal,
        queries: QueryWriter,
        inputs: PrivateInputs,
        settings: VerifierSettings,
        asker: Asker,
        book: Book,
        offers: Offers,
        loads: Loads,
        metrics: VerifierMetrics,
        keep: Callable[[Content], Awaitable[None]],
    ) -> None:
        self._moments = moments
        self._journal = journal
        self._queries = queries
        self._inputs = inputs
        self._settings = settings
        self._asker = asker
        self._book = book
        self._offers = offers
        self._loads = loads
        self._metrics = metrics
        self._keep = keep

    async def challenge(
        self, chosen: list[tuple[Hotkey, Axon]], secret: bytes, block: Block, info: SubnetInfo
    ) -> None:
        """Challenge the provers that were drawn in a block; returns once each has its verdict."""
        if not chosen:
            return
        challenges = await self._make_challenges([prover for prover, _ in chosen], secret, block)
        async with anyio.create_task_group() as group:
            for prover, axon in chosen:
                delay_s = challenge_delay_s(secret, block, prover, SENDING_SPAN * info.block_seconds)
                group.start_soon(self._ask, challenges[prover], prover, axon, delay_s, block)

    async def _log_attempt(self, challenge: Challenge, prover: Hotkey, block: Block) -> GenerateRequest:
        """The request of a challenge, whose attempt is in the log.

        Its moment is what the desk would name just then: a block from another source, asked sooner or later, would
        tell challenges from inferences.

        Raises:
            NotReady: as :meth:`Moments.now`.
        """
        made: list[GenerateRequest] = []

        def make(first: int) -> list[Attempt]:
            moment = self._moments.now()
            sampling = challenge.sampling(self._dialect(prover, block, challenge.temperature))
            made.append(
                self._asker.request(challenge.messages, sampling, prover, AttemptNumber(first), moment)
            )
            return [attempt_event(made[0], block)]

        await self._journal.append_made(make)
        return made[0]

    def _dialect(self, prover: Hotkey, block: Block, temperature: float) -> Dialect:
        standing = self._journal.standings.prover(prover)
        score = 0.0 if standing is None else standing.score
        return dialect_for(self._offers.of(prover, block), score, temperature)

    async def _make_challenges(
        self, provers: list[Hotkey], secret: bytes, block: Block
    ) -> dict[Hotkey, Challenge]:
        """A challenge for each; raises the first trouble that our own side had."""
        made: dict[Hotkey, Challenge] = {}
        troubles: list[Exception] = []

        async def make(prover: Hotkey) -> None:
            try:
                made[prover] = await make_challenge(
                    secret, block, prover, inputs=self._inputs, queries=self._queries, settings=self._settings
                )
            except (EngineError, PrivateInputUnavailable) as error:
                troubles.append(error)

        async with anyio.create_task_group() as group:
            for prover in provers:
                group.start_soon(make, prover)
        if troubles:
            raise troubles[0]
        return made

    async def _ask(
        self,
        challenge: Challenge,
        prover: Hotkey,
        axon: Axon,
        delay_s: float,
        block: Block,
    ) -> None:
        await anyio.sleep(delay_s)
        try:
            request = await self._log_attempt(challenge, prover, block)
        except NotReady as error:
            logger.warning("challenge_not_sent", prover=prover, kind=type(error).__name__, error=str(error))
            return
        standing = self._journal.standings.prover(request.prover)
        tier = Tier.BRONZE if standing is None else standing.tier
        with self._loads.sending(request.prover):
            verdict, judgement, content = await self._asker.ask(
                request,
                axon,
                TIERS[tier].similarity_threshold,
                lambda refusal: self._loads.excused(
                    prover, limited=refusal.limited, retry_after_s=refusal.retry_after_s
                ),
            )
        if content is not None:
            await self._keep(content)
        await self._book.record(verdict, judgement, request.prover)
        self._metrics.judged(verdict)
        logger.info(
            "verdict",
            prover=request.prover,
            outcome=verdict.outcome,
            method=verdict.method,
            reason=verdict.reason,
        )
