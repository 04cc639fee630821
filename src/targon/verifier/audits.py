"""Inferences that were drawn for an audit, judged beside the steps.

They are judged in no order that anybody could foresee, a few at a time: the reference engine has challenges as well. An
audit is nobody's to lose: what is awaited stands in the log, and what was said is kept until then. Where the engine
can't follow, no inference is taken until it has caught up (:mod:`targon.verifier.backlog`).
"""

from __future__ import annotations

from typing import Final

import anyio
import structlog

from targon.engines import Engine, EngineError
from targon.protocol.primitives import Hotkey
from targon.protocol.tiers import TIERS, Tier
from targon.transport.errands import NotReady
from targon.verification import Judgement, check_model
from targon.verifier.asking import Asker
from targon.verifier.backlog import Backlog
from targon.verifier.book import Book
from targon.verifier.delivery import inconclusive_delivery
from targon.verifier.journal import Journal
from targon.verifier.metrics import VerifierMetrics
from targon.verifier.retained import Content, ContentUnreadable, Retained

AT_ONCE: Final = 2
"""Audits that are judged at the same time."""
RETRY_S: Final = 5.0
"""Pause while the reference engine is away."""
BEHIND_RETRY_S: Final = 60.0
"""What users are told to wait while audits wait for too long: to catch up takes minutes."""
TRUSTED_S: Final = 1.0
"""The reference engine is asked again whether it works after this, or after an audit that came to nothing: so when it
goes away, no more are lost than are under way."""

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
        self._backlog = Backlog()
        self._behind = False
        self._ready = anyio.Semaphore(0)
        self._trusted_until_s = float("-inf")

    async def resume(self, retained: Retained) -> None:
        """Take up what an earlier run left; what it kept of others is deleted."""
        self._retained = retained
        left = self._journal.standings.under_audit
        await retained.forget_all_but(left)
        for attempt in sorted(left, key=lambda each: left[each].block):
            self.add(attempt, left[attempt].block)
        self._look()

    async def keep(self, content: Content, *, own: bool) -> None:
        """Keep an answer whose audit is about to be logged, or one to a challenge."""
        assert self._retained is not None  # the desk opens after it
        await self._retained.keep(content, own=own)

    def add(self, attempt: int, block: int) -> None:
        """An inference, asked for in a block, awaits its audit: its answer is kept, and the log says so."""
        self._backlog.add(attempt, block)
        self._ready.release()

    def check_room(self) -> None:
        """Whether another inference could be audited.

        Raises:
            NotReady: while audits wait for too long, and until enough of them were judged.
        """
        if self._look():
            self._metrics.turned_away_behind()
            raise NotReady(
                f"{len(self._backlog)} answers wait to be verified, the oldest for {self._age()} blocks: no request is "
                "taken until enough of them were; try again",
                BEHIND_RETRY_S,
            )

    def _age(self) -> int:
        return self._backlog.age(self._journal.standings.block)

    def _look(self) -> bool:
        """Whether the verifier is behind with its audits. That this has changed is logged."""
        behind = self._backlog.behind(self._journal.standings.block)
        if behind != self._behind:
            self._behind = behind
            self._metrics.behind(behind)
            tell = logger.warning if behind else logger.info
            word = "audits_behind" if behind else "audits_caught_up"
            tell(word, waiting=len(self._backlog), oldest_blocks=self._age())
        return behind

    async def run(self) -> None:
        """Judge what comes, for ever."""
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            await self._ready.acquire()
            await self._until_the_engine_works()
            await self._audit(self._backlog.take(self._journal.standings.block))
            self._look()

    async def _audit(self, attempt: int) -> None:
        assert self._retained is not None
        asked = self._journal.standings.under_audit.get(attempt)
        if asked is None:
            return
        judgement: Judgement | None = None
        try:
            content = await self._retained.get(attempt)
        except ContentUnreadable as error:
            logger.error("content_unreadable", attempt=attempt, error=str(error))
            content = None
        if content is None:
            why = "the verifier has lost the answer that it was to judge"
            verdict = inconclusive_delivery(attempt, asked.dialect, why, replied=True)
        elif check_model(content.response, self._engine.identity.model_digest) is not None:
            # it named the right one when it was given out, else it would not have been
            why = "the verifier runs another model now than when this was answered"
            verdict = inconclusive_delivery(attempt, asked.dialect, why, replied=True)
        else:
            standing = self._journal.standings.prover(asked.prover)
            tier = Tier.BRONZE if standing is None else standing.tier
            verdict, judgement = await self._asker.judge(
                content, TIERS[tier].similarity_threshold, counted=asked.counted
            )
            if verdict.outcome == "inconclusive":
                self._trusted_until_s = float("-inf")
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
        while anyio.current_time() >= self._trusted_until_s:
            try:
                await self._engine.check()
            except EngineError as error:
                if not failing:
                    logger.warning("audits_wait", error=str(error))
                failing = True
                await anyio.sleep(RETRY_S)
            else:
                self._trusted_until_s = anyio.current_time() + TRUSTED_S
