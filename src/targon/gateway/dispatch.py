"""The dispatcher: sends users' orders to the provers that the desk draws, and hands their answers back.

Before its first token an answer may come from anyone: a prover that fails is replaced, one that is slow is hedged by
another, and whoever begins first answers. From then on nobody else is asked: an answer is one prover's, or an error.
What was begun is ended: who fails is charged by the desk, whoever is outrun is not, and neither depends on a user who
waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

from targon.gateway.dispatch_buffer import Bell
from targon.gateway.dispatch_errands import ErrandRunner, Patience
from targon.gateway.dispatch_hedging import FirstTokenTimes, HedgeBudget
from targon.gateway.dispatch_metrics import DispatchMetrics
from targon.gateway.dispatch_pursuit import AT_ONCE, MAX_PROVERS, Because, Pursuit, Run
from targon.gateway.ports import Began, Delta, Desk, Finished
from targon.protocol.keys import Signer
from targon.protocol.orders import Order
from targon.protocol.primitives import Digest
from targon.transport import Clock, NeuronClient
from targon.transport.errands import FiledReceipt, NotReady, OfferedModel

DRAIN_POLL_S = 0.05
FULL_RETRY_S = 1.0
RESTART_S = 10.0
"""What a user is told to wait where the verifier is about to be started again."""


class Dispatcher:
    """Fulfils orders; the port :class:`targon.gateway.ports.Orders`. :meth:`run` it in a task group.

    Args:
        client: the verifier's own: challenges leave through it too, so that nobody can tell them from inferences.
        max_running: orders at once. Fewer than the client's connections, or provers are held to deadlines while
            their requests still wait on our side.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        client: NeuronClient,
        signer: Signer,
        registry: CollectorRegistry,
        patience: Patience | None = None,
        max_running: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        self._desk = desk
        self._patience = patience or Patience()
        self._max_running = max_running
        self._monotonic_s = (clock or Clock()).monotonic_s
        self._pursuits: set[Pursuit] = set()
        self._errands: set[Run] = set()
        # asyncio's own: a task of anyio's costs seven times as much, and no errand is cancelled by its group
        self._tasks: asyncio.TaskGroup | None = None
        self._ended = Bell()
        """Rings when the last errand has ended."""
        self._draining = False
        self._budget = HedgeBudget(self._patience.hedging)
        self._times = FirstTokenTimes(self._patience.hedging)
        self._metrics = DispatchMetrics(registry, lambda: len(self._pursuits), lambda: len(self._errands))
        self._runner = ErrandRunner(
            desk=desk,
            client=client,
            signer=signer,
            patience=self._patience,
            times=self._times,
            metrics=self._metrics,
            monotonic_s=self._monotonic_s,
        )

    def models(self) -> tuple[OfferedModel, ...]:
        """What users may ask for now."""
        return self._desk.models()

    async def receipt(self, receipt_id: Digest) -> FiledReceipt | None:
        """What is known of an answer; None: there is none of that id."""
        return await self._desk.receipt(receipt_id)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry errands until cancelled; those under way are withdrawn then, and that is logged."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = self._runner.beside = tasks
            try:
                task_status.started()
                await anyio.sleep_forever()
            finally:
                self._tasks = self._runner.beside = None
                self._hang_up()
                with anyio.CancelScope(shield=True):
                    while self._errands:
                        await self._ended.wait()

    async def drain(self, within_s: float) -> None:
        """Take no more orders, let those under way end well, and after a time hang up on the rest."""
        self._draining = True
        with anyio.move_on_after(within_s):
            while self._pursuits:
                await anyio.sleep(DRAIN_POLL_S)
        self._hang_up()
        with anyio.move_on_after(self._patience.settle_s):
            while self._errands:
                await anyio.sleep(DRAIN_POLL_S)

    def _hang_up(self) -> None:
        for pursuit in {run.pursuit for run in self._errands}:
            pursuit.stop()

    async def fulfil(self, order: Order) -> AsyncGenerator[Began | Delta | Finished, None]:
        """One ``Began``, any number of ``Delta``, one ``Finished``. Close the generator to hang up.

        Raises:
            DeskError: nobody can serve it; nothing was begun.
            ServiceFailed: an answer broke off or was refused; it is not to be used.
        """
        self._admit()
        self._budget.earn()
        pursuit = Pursuit(order, self._patience.buffer_bytes)
        self._pursuits.add(pursuit)
        try:
            run = await self._first_token(pursuit)
            assert run.errand is not None
            yield Began(run.errand.receipt_id)
            get = run.buffer.get
            while True:
                delta = get()
                if delta is not None:
                    yield delta
                elif run.end is None:
                    await pursuit.bell.wait()
                elif isinstance(run.end, Finished):
                    yield run.end
                    return
                else:
                    raise run.end
        finally:
            self._pursuits.discard(pursuit)
            pursuit.leave()

    def _admit(self) -> None:
        if self._draining or self._tasks is None:
            raise NotReady("the verifier takes no orders now: it is being started or stopped", RESTART_S)
        if len(self._pursuits) >= self._max_running:
            raise NotReady(
                f"{self._max_running} requests are running, expected fewer; try again", FULL_RETRY_S
            )

    async def _first_token(self, pursuit: Pursuit) -> Run:
        """Whoever begins to answer first. Those who fail before that are replaced, those who are slow are hedged.

        Raises:
            DeskError, ServiceFailed: nobody did.
        """
        begun_s = self._monotonic_s()
        self._send(pursuit, "order")
        while pursuit.winner is None:
            may_ask = (
                pursuit.asked < MAX_PROVERS and self._monotonic_s() - begun_s < self._patience.failover_s
            )
            waiting = pursuit.waiting
            hedge_s: float | None = None
            if not waiting:
                if not may_ask or pursuit.refusal is not None:
                    raise pursuit.hopeless()
                self._send(pursuit, "failover")
                continue
            if may_ask and len(waiting) < AT_ONCE and not pursuit.hedged_in_vain:
                hedge_s = self._hedge(pursuit, waiting[0])
            await pursuit.bell.wait(hedge_s)
        self._metrics.first_token.observe(self._monotonic_s() - begun_s)
        return pursuit.winner

    def _hedge(self, pursuit: Pursuit, slow: Run) -> float | None:
        """Ask another prover if this one is slow; returns when to look again, by the event loop's clock."""
        now_s = asyncio.get_running_loop().time()
        if slow.errand is None:
            return now_s + self._patience.hedging.floor_s
        at_s = pursuit.sent_s + self._times.patience_s(slow.errand.request.model)
        if now_s < at_s:
            return at_s
        if self._budget.spend():
            self._send(pursuit, "hedge")
            return None
        return now_s + self._patience.hedging.unknown_s

    def _send(self, pursuit: Pursuit, because: Because) -> None:
        """Have one more errand taken and sent, in a task that outlives whoever waits for it."""
        if self._tasks is None:
            raise NotReady("the verifier is being stopped", RESTART_S)
        run = pursuit.another(because)
        pursuit.sent_s = asyncio.get_running_loop().time()
        self._errands.add(run)
        self._tasks.create_task(self._carry(run))

    async def _carry(self, run: Run) -> None:
        try:
            await self._runner.run(run)
        finally:
            self._errands.discard(run)
            run.part()
            if not self._errands:
                self._ended.ring()
