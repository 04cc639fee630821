"""All that a verifier does for users' inferences, put together: the desk, and what works behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup

from targon.chain import Chain, Neuron, SubnetInfo
from targon.engines import Engine
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Interval
from targon.protocol.profile import Profile
from targon.protocol.schedule import first_block
from targon.transport import NeuronClient
from targon.verification import Calibration
from targon.verification.querying import QueryWriter
from targon.verifier.asking import Asker
from targon.verifier.audits import Audits
from targon.verifier.book import Book
from targon.verifier.desk import Desk
from targon.verifier.dialects import Offers
from targon.verifier.examination import Examination
from targon.verifier.filing import Filing
from targon.verifier.journal import Journal
from targon.verifier.loads import Loads
from targon.verifier.metrics import VerifierMetrics
from targon.verifier.moments import Moments
from targon.verifier.own import OwnInferences
from targon.verifier.ports import PrivateInputs
from targon.verifier.receipt_index import ReceiptIndex
from targon.verifier.retained import Content, ContentUnwritten, Retained
from targon.verifier.routes import Routes
from targon.verifier.settings import VerifierSettings
from targon.verifier.sizes import Sizes

logger = structlog.get_logger(__name__)


class Inferences:
    """The desk, and the tasks behind it. :meth:`opened`, then :meth:`run` and a :meth:`step` for each block."""

    def __init__(
        self,
        *,
        folder: Path,
        chain: Chain,
        journal: Journal,
        engine: Engine,
        client: NeuronClient,
        inputs: PrivateInputs,
        queries: QueryWriter,
        signer: Signer,
        profile: Profile,
        settings: VerifierSettings,
        calibration: Calibration | None,
        asker: Asker,
        book: Book,
        offers: Offers,
        loads: Loads,
        metrics: VerifierMetrics,
        secret_of: Callable[[Interval], bytes],
        info: Callable[[], SubnetInfo],
        random_bytes: Callable[[int], bytes],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._journal = journal
        self.moments = Moments(chain, journal, secret_of, info, monotonic_s)
        self._audits = Audits(journal=journal, engine=engine, asker=asker, book=book, metrics=metrics)
        self._filing = Filing(journal, signer)
        self._profile = profile
        self._info = info
        self.routes = Routes(journal, offers, loads, engine.identity.name, self._interval_left_s)
        self.desk = Desk(
            journal=journal,
            moments=self.moments,
            offers=offers,
            loads=loads,
            routes=self.routes,
            sizes=Sizes(engine, calibration),
            asker=asker,
            book=book,
            audits=self._audits,
            examination=Examination(engine),
            filing=self._filing,
            metrics=metrics,
            identity=engine.identity,
            random_bytes=random_bytes,
            monotonic_s=monotonic_s,
        )
        self._own = OwnInferences(
            desk=self.desk,
            journal=journal,
            routes=self.routes,
            client=client,
            signer=signer,
            inputs=inputs,
            queries=queries,
            settings=settings,
            profile=profile,
            secret_of=secret_of,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open what lies beside the log, and take up what an earlier run left.

        Raises:
            ContentUnreadable: if the content's key is not what it should be.
        """
        retained = await anyio.to_thread.run_sync(Retained.open, self._folder)
        with closing(retained):
            index = await anyio.to_thread.run_sync(ReceiptIndex.open, self._folder)
            with closing(index):
                await index.catch_up(self._journal)
                await self._audits.resume(retained)
                self._filing.index = index
                try:
                    yield
                finally:
                    self._filing.index = None
                    with anyio.CancelScope(shield=True):
                        await index.write()

    async def run(self) -> None:
        """Work behind the desk, until cancelled. The desk is open meanwhile."""
        assert self._filing.index is not None  # opened() comes first
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.moments.run)
                group.start_soon(self._audits.run)
                group.start_soon(self._filing.index.run)
                self.desk.open()
        finally:
            self.desk.close()

    async def keep_challenge(self, content: Content) -> None:
        """Keep an answer to a challenge, for whoever checks an exported log."""
        try:
            await self._audits.keep(content, own=True)
        except ContentUnwritten as error:
            logger.warning("challenge_not_kept", error=str(error))

    def _interval_left_s(self) -> float:
        """How long the open interval goes on."""
        standings, length = self._journal.standings, self._profile.interval_blocks
        if standings.interval is None:
            return 0.0
        end = first_block(Interval(standings.interval + 1), length)
        return max(1, end - standings.block) * self._info().block_seconds

    def seat(self, provers: Iterable[Neuron]) -> None:
        """Who serves, by the chain."""
        self.routes.seat({neuron.hotkey: neuron.axon for neuron in provers if neuron.axon is not None})

    async def step(self, group: TaskGroup, block: Block, info: SubnetInfo) -> None:
        """What is due in a block."""
        await self.routes.refresh(block)
        await self.desk.withdraw_lost()
        await self._own.step(group, block, info)
