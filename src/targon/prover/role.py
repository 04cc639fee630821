"""The prover as a running role: everything that it is made of, wired on one screen."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

import anyio
import structlog
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

from targon.chain.announcing import Announcer
from targon.chain.errors import ChainError
from targon.chain.port import Axon, Chain, Neuron
from targon.engines.errors import EngineError
from targon.engines.port import Engine
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey
from targon.prover.checks import caller_policy
from targon.prover.errors import CannotStart
from targon.prover.service import ProverService
from targon.prover.settings import ProverSettings
from targon.prover.stake_queue import StakeQueue
from targon.prover.view import ChainView
from targon.transport import (
    Clock,
    Gate,
    Refusal,
    Route,
    ServerTls,
    bind,
    bound_port,
    operations_app,
    serve,
)

ENGINE_CHECK_S = 30.0
STOP_S = 25.0
"""How long requests that are running have to end when the prover is asked to stop: process managers wait 30 s."""
FLUSH_S = 0.2
"""From the last answer's end in the engine until it is with its caller."""


class Prover:
    """Serves completions to verifiers, with signed receipts. Built from ports; it owns none of them.

    Args:
        engine: what generates.
        chain: who may call, and where we are announced.
        signer: our hotkey.
        registry: where metrics go; a prover's own by default, so that several can share a process.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        chain: Chain,
        signer: Signer,
        settings: ProverSettings | None = None,
        clock: Clock | None = None,
        registry: CollectorRegistry | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._engine = engine
        self._chain = chain
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._settings = settings or ProverSettings()
        self._clock = clock or Clock()
        self._registry = registry or CollectorRegistry()
        self._random_bytes = random_bytes
        self._view = ChainView(
            chain, max_age_s=self._settings.max_chain_age_s, monotonic_s=self._clock.monotonic_s
        )
        self._log = structlog.get_logger("targon.prover")
        self._stop = anyio.Event()
        self._serving: ProverService | None = None

    def stop(self) -> None:
        """Ask :meth:`run` to end: nothing new is taken, and what runs has a little time to end well."""
        self._stop.set()

    def ailing(self) -> str | None:
        """What keeps it from serving now, in words; None if nothing does."""
        return "it doesn't serve yet" if self._serving is None else self._ailing(self._serving)

    async def run(self, *, task_status: TaskStatus[Axon] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` is called, or cancelled. Reports its axon once it is announced and answers.

        Raises:
            PortInUse: before anything else is started.
            CannotStart: if the chain or the engine does not answer, or our hotkey has no UID.
            BadSettings: if there is no address that could be announced.
        """
        settings = self._settings
        host, over_tls = settings.announced_host(), settings.serves_tls()
        with ExitStack() as sockets:
            sock = sockets.enter_context(bind(settings.host, settings.port))
            operations = None
            if settings.metrics_port is not None:
                operations = sockets.enter_context(
                    bind("127.0.0.1", settings.metrics_port, flag="--metrics.port")
                )
            axon = Axon(host, settings.external_port or bound_port(sock))
            await self._check_engine()
            await self._view.open()
            # The port is ours already: whoever calls before the server runs waits in its backlog.
            announcer = Announcer(self._chain, self._signer, axon)
            await self._announce(announcer)
            service = self._service()
            tls = ServerTls(self._signer, clock=self._clock) if over_tls else None
            async with anyio.create_task_group() as tasks:
                await tasks.start(lambda task_status: self._serve(sock, service, tls, task_status))
                if operations is not None:
                    app = operations_app(self._registry, lambda: self._ailing(service))
                    tasks.start_soon(lambda: serve(app, operations, limits=settings.limits))

                def look_after(neuron: Neuron | None) -> None:
                    tasks.start_soon(announcer.look, neuron, self._view.head)

                tasks.start_soon(self._view.keep_fresh, look_after, self._hotkey)
                self._log.info(
                    "prover serves", axon=str(axon), model=self._engine.identity.name, tls=over_tls
                )
                task_status.started(axon)
                self._serving = service
                await self._stop.wait()
                with anyio.move_on_after(STOP_S) as scope:
                    await service.drain()
                    await anyio.sleep(FLUSH_S)
                if scope.cancelled_caught:
                    self._log.warning("requests broken off", after_s=STOP_S)
                tasks.cancel_scope.cancel()

    def _service(self) -> ProverService:
        settings = self._settings
        slots = settings.max_running or self._engine.identity.max_batch
        queue = StakeQueue(
            slots=slots,
            places=settings.max_queue,
            max_wait_s=settings.max_wait_s,
        )
        return ProverService(
            engine=self._engine,
            view=self._view,
            signer=self._signer,
            queue=queue,
            capacity=settings.capacity(slots),
            step_timeout_s=settings.step_timeout_s,
            registry=self._registry,
            clock=self._clock,
            random_bytes=self._random_bytes,
        )

    async def _serve(
        self,
        sock: socket.socket,
        service: ProverService,
        tls: ServerTls | None,
        task_status: TaskStatus[None],
    ) -> None:
        gate = Gate(
            receiver=self._hotkey,
            routes={
                "/v1/generate": Route("POST", service.generate, takes_body=True),
                "/v1/status": Route("GET", service.status, takes_body=False),
            },
            open_routes={"/healthz": b'{"status":"ok"}'},
            policy=caller_policy(self._view, self._settings),
            limits=self._settings.limits,
            registry=self._registry,
            clock=self._clock,
        )
        await serve(gate, sock, limits=self._settings.limits, tls=tls, task_status=task_status)

    async def _check_engine(self) -> None:
        try:
            with anyio.fail_after(ENGINE_CHECK_S):
                await self._engine.check()
        except (EngineError, TimeoutError) as error:
            why = str(error) or f"no answer within {ENGINE_CHECK_S:g} s"
            raise CannotStart(f"the engine does not work ({why}); start it, or name another") from error

    async def _announce(self, announcer: Announcer) -> None:
        """Put our axon on the chain: a prover that nobody finds serves nobody.

        Raises:
            CannotStart: if the hotkey has no UID, or the chain does not take the axon within a few tries.
        """
        try:
            await announcer.announce(self._view.head)
        except ChainError as error:
            raise CannotStart(str(error)) from error

    def _ailing(self, service: ProverService) -> str | None:
        """What is wrong now, in words."""
        try:
            registered = self._view.neuron(self._hotkey) is not None
        except Refusal as refusal:
            return refusal.message
        if not registered:
            return "our hotkey has no UID"
        return service.engine_trouble
