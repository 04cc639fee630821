"""Inferences that were drawn for an audit, judged beside the steps.

They are judged in no order that anybody could foresee, a few at a time: the reference engine has challenges as well. An
audit is nobody's to lose: what is awaited stands in the log, and what was said is kept until then.
"""

from __future__ import annotations

import random
from typing import Final

import anyio
import structlog

from targon.engines import Engine, EngineError
from targon.protocol.primitives import Hotkey
from targon.protocol.tiers import TIERS, Tier
from targon.verification import Judgement
from targon.verifier.asking import Asker
from targon.verifier.book import Book
from targon.verifier.delivery import inconclusive_delivery
from targon.verifier.journal import Journal
from targon.verifier.metrics import VerifierMetrics
from targon.verifier.retained import Content, ContentUnreadable, Retained

AT_ONCE: Final = 2
"""Audits that are judged at the same time."""
RETRY_S: Final = 5.0
"""Pause while the reference engine is away."""

logger = structlog.get_logger(__name__)


class Audits:
    """The queue of audits. :meth:`resume` it, then :meth:`run` it."""

    def __init__(
        self,
        *,
        journal: Journal,
        engine: Engine,
        asker: Asker,
        book: Book,
        metrics: VerifierMetrics,
    ) -> None:
        self._journal = journal
        self._engine = engine
        self._asker = asker
        self._book = book
        self._metrics = metrics
        self._retained: Retained | None = None
        self._waiting: list[int] = []
        self._order = random.SystemRandom()
        self._ready = anyio.Semaphore(0)

    async def resume(self, retained: Retained) -> None:
        """Take up what an earlier run left; what it kept of others is deleted."""
        self._retained = retained
        left = list(self._journal.standings.under_audit)
        await retained.forget_all_but(left)
        for attempt in left:
            self.add(attempt)

    async def keep(self, content: Content, *, own: bool) -> None:
        """Keep an answer whose audit is about to be logged, or one to a challenge."""
        assert self._retained is not None  # the desk opens after it
        await self._retained.keep(content, own=own)

    def add(self, attempt: int) -> None:
        """An inference awaits its audit: its answer is kept, and the log says so."""
        self._waiting.append(attempt)
        self._ready.release()

    async def run(self) -> None:
        """Judge what comes, for ever."""
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            await self._ready.acquire()
            place = self._order.randrange(len(self._waiting))
            self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
            await self._audit(self._waiting.pop())

    async def _audit(self, attempt: int) -> None:
        assert self._retained is not None
        asked = self._journal.standings.under_audit.get(attempt)
        if asked is None:
            return
        await self._until_the_engine_works()
        judgement: Judgement | None = None
        try:
            content = await self._retained.get(attempt)
        except ContentUnreadable as error:
            logger.error("content_unreadable", attempt=attempt, error=str(error))
            content = None
        if content is None:
            why = "the verifier has lost the answer that it was to judge"
            verdict = inconclusive_delivery(attempt, asked.dialect, why, replied=True)
        else:
            standing = self._journal.standings.prover(asked.prover)
            tier = Tier.BRONZE if standing is None else standing.tier
            verdict, judgement = await self._asker.judge(
                content, TIERS[tier].similarity_threshold, counted=asked.counted
            )
        await self._book.record(verdict, judgement, Hotkey(asked.prover))
        await self._retained.forget(attempt)
        self._metrics.judged(verdict)
        logger.info(
            "verdict",
            prover=asked.prover,
            outcome=verdict.outcome,
            method=verdict.method,
            reason=verdict.reason,
        )

    async def _until_the_engine_works(self) -> None:
        """An audit can wait; an inconclusive verdict would be for good."""
        failing = False
        while True:
            try:
                await self._engine.check()
            except EngineError as error:
                if not failing:
                    logger.warning("audits_wait", error=str(error))
                failing = True
                await anyio.sleep(RETRY_S)
            else:
                return
