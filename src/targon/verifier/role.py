"""The running verifier: one step per block, each from challenge to standings.

A step
  1. notes who joined and left, and opens or closes intervals as blocks demand;
  2. draws the provers to challenge and makes each a challenge of its own, in a dialect that its engine speaks;
  3. writes the attempts to the log, and only then sends each, at a moment that is drawn as well;
  4. judges the answers and writes the verdicts, with what they are evidence of, and convictions;
  5. closes, which moves the scores.

The next step starts when the last has ended. Blocks that pass meanwhile are skipped, and logged. Beside the steps,
weights and the heads of intervals are put on chain: a chain takes its time, and nobody waits for it. Beside them, too,
users' inferences are taken and settled at the desk, which belong to no step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

from targon.chain import Axon, Chain, ChainError, SubnetInfo, WrongNetwork
from targon.engines import Engine, EngineError
from targon.ledger import (
    BlocksSkipped,
    IntervalClosed,
    IntervalOpened,
    StepClosed,
)
from targon.protocol import draws
from targon.protocol.keys import Signer
from targon.protocol.primitives import Block, Hotkey, Interval
from targon.protocol.profile import Profile
from targon.protocol.schedule import interval_of
from targon.transport import Clock, NeuronClient
from targon.verification import Calibration, Embedder
from targon.verification.querying import QueryWriter
from targon.verifier.anchoring import Anchors
from targon.verifier.asking import Asker
from targon.verifier.axon import Serving, VerifierAxon
from targon.verifier.book import Book
from targon.verifier.canary import Canary
from targon.verifier.challenger import Challenger
from targon.verifier.desk import Desk
from targon.verifier.dialects import Offers
from targon.verifier.inferences import Inferences
from targon.verifier.journal import Journal
from targon.verifier.loads import Loads
from targon.verifier.metrics import VerifierMetrics
from targon.verifier.neurons import comings_and_goings, draw_provers, provers_among
from targon.verifier.opening import adopt_calibration, check_secret, close_open_attempts, open_log
from targon.verifier.ports import PrivateInputs, PrivateInputUnavailable
from targon.verifier.settings import VerifierSettings
from targon.verifier.statistics import StatisticsSchedule, statistics
from targon.verifier.watch import ChainWatch
from targon.verifier.weights import WeightSetter

logger = structlog.get_logger(__name__)

RETRY_S = 2.0
"""Pause after a step that our own side could not take."""

INFO_BLOCKS = 25
"""Blocks between two looks at the subnet's settings."""


class Verifier:
    """A verifier, built from its ports."""

    def __init__(
        self,
        *,
        chain: Chain,
        journal: Journal,
        engine: Engine,
        client: NeuronClient,
        inputs: PrivateInputs,
        signer: Signer,
        profile: Profile,
        settings: VerifierSettings,
        master_secret: bytes,
        random_bytes: Callable[[int], bytes],
        calibration: Calibration | None,
        folder: Path,
        embedder: Embedder | None = None,
        serving: Serving | None = None,
        metrics_port: int | None = None,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Build it; nothing is started.

        Args:
            calibration: for the engine's model on this engine; without one every verdict is inconclusive.
            folder: where it keeps what lies beside its log: the content that audits need, and an index of receipts.
            embedder: for work that can't be replayed; without one it is inconclusive.
            serving: where its axon serves; None: nothing is served, nor announced.
            metrics_port: on 127.0.0.1; None: no metrics are served.
            registry: where metrics go; a verifier's own by default, so that several can share a process.
        """
        self._chain = chain
        self._journal = journal
        self._engine = engine
        self._hotkey = Hotkey(signer.ss58_address)
        self._profile = profile
        self._settings = settings
        self._master_secret = master_secret
        self._offers = Offers(client, signer, profile.interval_blocks)
        asker = Asker(
            engine=engine,
            canary=Canary(chain, engine),
            client=client,
            signer=signer,
            random_bytes=random_bytes,
            calibration=calibration,
            offers=self._offers,
            embedder=embedder,
        )
        self._calibration = calibration
        book = Book(journal, calibration)
        self._weights = WeightSetter(
            chain,
            journal,
            signer,
            settings.version_key,
            self._secret_at,
            disabled=settings.disable_set_weights,
        )
        self._anchors = Anchors(chain, journal, signer)
        self._statistics = StatisticsSchedule(settings.compute_stats_interval)
        self._info: SubnetInfo | None = None
        self._info_until = Block(0)
        self._stop = anyio.Event()
        monotonic_s, registry = (clock or Clock()).monotonic_s, registry or CollectorRegistry()
        self._watch = ChainWatch(chain, self._hotkey, monotonic_s)
        self._metrics = VerifierMetrics(
            metrics_port, journal=journal, watch=self._watch, monotonic_s=monotonic_s, registry=registry
        )
        queries = QueryWriter(engine, settings.query_tokens, self._metrics.query)
        loads = Loads(monotonic_s)
        self._inferences = Inferences(
            folder=folder,
            chain=chain,
            journal=journal,
            engine=engine,
            client=client,
            inputs=inputs,
            queries=queries,
            signer=signer,
            profile=profile,
            settings=settings,
            calibration=calibration,
            asker=asker,
            book=book,
            offers=self._offers,
            loads=loads,
            metrics=self._metrics,
            secret_of=lambda interval: self._secret(interval, self._known_info()),
            info=self._known_info,
            random_bytes=random_bytes,
            monotonic_s=monotonic_s,
        )
        self._challenger = Challenger(
            moments=self._inferences.moments,
            journal=journal,
            queries=queries,
            inputs=inputs,
            settings=settings,
            asker=asker,
            book=book,
            offers=self._offers,
            loads=loads,
            metrics=self._metrics,
            keep=self._inferences.keep_challenge,
        )
        self._axon = VerifierAxon(
            serving,
            chain=chain,
            signer=signer,
            journal=journal,
            identity=engine.identity,
            watch=self._watch,
            draining=self._stop.is_set,
            registry=registry,
        )

    @property
    def desk(self) -> Desk:
        """Where users' inferences are taken and settled, while it runs; else it raises ``NotReady``."""
        return self._inferences.desk

    def is_healthy(self) -> bool:
        """Whether a step has closed since it was started, and nothing ails it."""
        return self._metrics.is_healthy()

    def stop(self) -> None:
        """Ask :meth:`run` to end: the step that is running is abandoned, and nobody is charged for it."""
        self._stop.set()

    async def run(self, *, task_status: TaskStatus[Axon | None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Verify until :meth:`stop` is called. Reports the axon once it answers; None if nothing is served.

        Raises:
            PortInUse: before anything else is started.
            NotRegistered: if the hotkey has no UID on the subnet; its text has the command that helps.
            LogOfAnother: if the log is not this verifier's.
            ChainError: if the chain cannot be asked at the start.
            LedgerError: if the log cannot be written.
        """
        with self._axon.bound(), self._metrics.bound():
            self._info = info = await self._chain.info()
            await self._chain.require_uid(self._hotkey)
            await self._watch.open()
            identity = self._engine.identity
            await open_log(
                self._journal, verifier=self._hotkey, info=info, profile=self._profile, identity=identity
            )
            check_secret(self._journal, lambda interval: self._secret(interval, info))
            await adopt_calibration(self._journal, self._chain, identity, self._calibration)
            await close_open_attempts(
                self._journal, "the verifier was restarted before it could judge the answer"
            )
            async with self._inferences.opened(), anyio.create_task_group() as beside:
                beside.start_soon(self._watch.run)
                beside.start_soon(self._metrics.run)
                task_status.started(await beside.start(self._axon.run))
                await self._verify()
                beside.cancel_scope.cancel()

    async def _verify(self) -> None:
        """Steps and what is put on chain, until :meth:`stop` is called; then no attempt is left open."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._inferences.run)
                group.start_soon(self._each_block, self._metrics.timed(self._step), "challenges")
                group.start_soon(self._each_block, self._keep_on_chain, "weights and anchors")
                group.start_soon(self._each_block, partial(self._inferences.step, group), "inferences")
                await self._stop.wait()
                group.cancel_scope.cancel()
        finally:
            if not self._journal.parted:
                with anyio.CancelScope(shield=True):
                    await close_open_attempts(
                        self._journal, "the verifier was stopped before it could judge the answer"
                    )
                    await self._journal.snapshot()

    async def _each_block(self, work: Callable[[Block, SubnetInfo], Awaitable[None]], what: str) -> None:
        """Work on every block that comes, one after the other. Our own side's troubles end no more than a turn."""
        async with aclosing(self._chain.blocks()) as blocks:
            async for block in blocks:
                try:
                    await work(block, await self._current_info(block))
                except (ChainError, EngineError, PrivateInputUnavailable) as error:
                    logger.warning(
                        "block_abandoned", what=what, kind=type(error).__name__, error=str(error), block=block
                    )
                    await anyio.sleep(RETRY_S)
                await self._journal.snapshot_if_due()

    async def _current_info(self, block: Block) -> SubnetInfo:
        """The subnet's settings, which its owner may change: read anew every so many blocks."""
        info = self._info
        if info is None or block >= self._info_until:
            self._info_until = Block(block + INFO_BLOCKS)
            try:
                fresh = await self._chain.info()
            except ChainError:
                self._info_until = block
                raise
            if info is not None and (fresh.genesis, fresh.netuid) != (info.genesis, info.netuid):
                raise WrongNetwork(
                    f"the chain became another one: got genesis {fresh.genesis[:12]}…, expected {info.genesis[:12]}…; "
                    "look at --subtensor.chain_endpoint"
                )
            self._info = info = fresh
        return info

    async def _keep_on_chain(self, block: Block, info: SubnetInfo) -> None:
        """Put on chain what is due there: the interval's head, then weights."""
        if self._journal.standings.interval is None:
            return  # the log has only begun: there is nobody to say anything of yet
        try:
            await self._anchors.step(block)
        finally:  # weights don't wait for anchors
            await self._weights.step(block, info)

    async def _note_skipped(self, block: Block) -> None:
        last = self._journal.standings.stepped_block
        if last >= 0 and block > last + 1:
            await self._journal.append(
                BlocksSkipped(
                    first=Block(last + 1),
                    last=Block(block - 1),
                    reason="they passed while an earlier step was running, or while the verifier was not",
                )
            )

    async def _step(self, block: Block, info: SubnetInfo) -> None:
        if block <= self._journal.standings.stepped_block:
            return
        await self._note_skipped(block)
        metagraph = await self._chain.metagraph()
        if metagraph.by_hotkey(self._hotkey) is None:
            await self._chain.require_uid(self._hotkey)
        provers = provers_among(
            metagraph.neurons, me=self._hotkey, vpermit_tao_limit=self._settings.vpermit_tao_limit
        )
        standings = self._journal.standings
        await self._journal.append(*comings_and_goings(standings, provers, block))
        interval = interval_of(block, self._profile.interval_blocks)
        await self._turn_interval(interval, block, info)
        self._inferences.seat(provers)
        await self._offers.refresh(((n.hotkey, n.axon) for n in provers if n.axon is not None), block)
        await self._inferences.routes.refresh(block)
        secret = self._secret(interval, info)
        chosen = draw_provers(provers, standings, secret, block, self._settings.sample_size)
        await self._challenger.challenge(chosen, secret, block, info)
        await self._journal.append(StepClosed(block=block))
        if self._statistics.due(block):
            logger.info("statistics", **statistics(self._journal.standings))

    # -- intervals -------------------------------------------------------------------------------------

    def _known_info(self) -> SubnetInfo:
        assert self._info is not None  # read before anything is drawn
        return self._info

    def _secret_at(self, block: Block) -> bytes:
        return self._secret(interval_of(block, self._profile.interval_blocks), self._known_info())

    def _secret(self, interval: Interval, info: SubnetInfo) -> bytes:
        return draws.interval_secret(self._master_secret, bytes.fromhex(info.genesis), info.netuid, interval)

    async def _turn_interval(self, interval: Interval, block: Block, info: SubnetInfo) -> None:
        current = self._journal.standings.interval
        if current == interval:
            return
        commitment = draws.commitment(self._secret(interval, info))
        opened = IntervalOpened(interval=interval, block=block, commitment=commitment)
        if current is None:
            await self._journal.append(opened)
            return
        # In one append: users' inferences go on, and each needs an interval that is open.
        secret = self._secret(current, info)
        await self._journal.append(IntervalClosed(interval=current, block=block, secret=secret.hex()), opened)
