"""A verifier's axon: what it serves to registered callers, and that the chain says where."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import structlog
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

from targon.chain import Announcer, Axon, Chain, ChainError, host_to_announce
from targon.engines import ModelIdentity
from targon.ledger import Log
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey
from targon.transport import (
    Allowance,
    Gate,
    Limits,
    Route,
    ServerTls,
    Tls,
    bind,
    bound_port,
    serve,
    speaks_tls,
)
from targon.verifier.journal import Journal
from targon.verifier.service import VerifierService
from targon.verifier.watch import ChainWatch

logger = structlog.get_logger(__name__)


def _limits() -> Limits:
    """Nobody has to ask a verifier often, and a piece of log is dear: narrower than a prover's."""
    return Limits(
        per_hotkey=Allowance(per_second=5.0, burst=50, concurrent=4),
        per_address=Allowance(per_second=20.0, burst=200, concurrent=16),
        max_concurrent=64,
        max_nonces=10_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AxonSettings:
    """Where a verifier serves (``--axon.…``)."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8092
    """Port to listen at; 0: any free one."""
    external_host: str | None = None
    """The address that is announced on the chain; by default ``host``."""
    external_port: int | None = None
    """The port that is announced; by default the one that is listened at."""
    tls: Tls = "auto"
    """Whether it is served over TLS; auto: unless the announced address is loopback."""
    limits: Limits = field(default_factory=_limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a verifier serves with."""

    log: Log
    """Its own log, opened a second time, for reading."""
    axon: AxonSettings = field(default_factory=AxonSettings)


class VerifierAxon:
    """Serves, and keeps itself announced. A verifier without one serves nobody, and nobody finds it.

    Args:
        serving: None: nothing is served, and nothing announced (``--neuron.axon_off``).
        draining: whether the verifier was asked to stop.
    """

    def __init__(
        self,
        serving: Serving | None,
        *,
        chain: Chain,
        signer: Signer,
        journal: Journal,
        identity: ModelIdentity,
        watch: ChainWatch,
        draining: Callable[[], bool],
        registry: CollectorRegistry,
    ) -> None:
        self._serving = serving
        self._chain = chain
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._journal = journal
        self._identity = identity
        self._watch = watch
        self._draining = draining
        self._registry = registry
        self._bound: tuple[socket.socket, Axon] | None = None

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Take the port, before anything dear is started.

        Raises:
            PortInUse: naming the port and what to do.
            AxonRefused: if the address to announce is none.
        """
        if self._serving is None:
            yield
            return
        settings = self._serving.axon
        host = host_to_announce(settings.host, settings.external_host)
        with bind(settings.host, settings.port) as sock:
            self._bound = sock, Axon(host, settings.external_port or bound_port(sock))
            yield

    async def run(self, *, task_status: TaskStatus[Axon | None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Reports the axon once it answers; None if nothing is served."""
        if self._serving is None or self._bound is None:
            task_status.started(None)
            return
        sock, axon = self._bound
        settings = self._serving.axon
        gate = self._gate(self._serving)
        tls = ServerTls(self._signer) if speaks_tls(settings.tls, axon.host) else None
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: _serve(gate, sock, settings.limits, tls, task_status))
            tasks.start_soon(self._keep_announced, Announcer(self._chain, self._signer, axon))
            logger.info("verifier_serves", axon=str(axon), tls=tls is not None)
            task_status.started(axon)

    def _gate(self, serving: Serving) -> Gate:
        service = VerifierService(
            hotkey=self._hotkey,
            identity=self._identity,
            standings=lambda: self._journal.standings,
            log=serving.log,
            watch=self._watch,
            draining=self._draining,
        )
        return Gate(
            receiver=self._hotkey,
            routes={
                "/v1/status": Route("GET", service.status, takes_body=False),
                "/v1/standing": Route("GET", service.standing, takes_body=False),
                "/v1/log": Route("GET", service.log, takes_body=False, takes_query=True),
            },
            open_routes={"/healthz": b'{"status":"ok"}'},
            policy=self._watch.admit,
            limits=serving.axon.limits,
            registry=self._registry,
        )

    async def _keep_announced(self, announcer: Announcer) -> None:
        """Announce, and look after it. A verifier that nobody finds verifies all the same."""
        try:
            await announcer.announce(self._watch.head)
        except ChainError as error:
            logger.warning("not_announced", error=str(error), effect="provers cannot ask this verifier yet")
        while True:
            await self._watch.next_metagraph()
            await announcer.look(self._watch.me, self._watch.head)


async def _serve(
    gate: Gate, sock: socket.socket, limits: Limits, tls: ServerTls | None, task_status: TaskStatus[None]
) -> None:
    await serve(gate, sock, limits=limits, tls=tls, task_status=task_status)
