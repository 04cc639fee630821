"""The oracle as a running role: everything that it is made of, wired on one screen."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

from targon.chain import Axon, Chain, ChainError
from targon.engines import Engine
from targon.oracle.book import CommitmentBook
from targon.oracle.errors import CannotStart, FolderTaken, StoreUnavailable
from targon.oracle.metrics import CountsOf, OracleMetrics
from targon.oracle.periods import PeriodFolder
from targon.oracle.ports import PeriodWriter
from targon.oracle.preparing import Preparer
from targon.oracle.reference import ReferenceDesk, ReferenceLimits
from targon.oracle.service import OracleService
from targon.oracle.settings import OracleSettings
from targon.oracle.turns import Turns
from targon.oracle.view import ChainView
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey
from targon.transport import (
    Clock,
    Gate,
    OpenRoute,
    Route,
    ServerTls,
    bind,
    bound_port,
    operations_app,
    serve,
)


class Oracle:
    """Gives verifiers private inputs that it committed to beforehand. Built from ports; it owns none of them.

    Args:
        writer: takes passages, and writes periods down.
        source: what they are drawn from, for whoever asks.
        chain: who may ask, and what block it is.
        signer: our hotkey. It needs no UID.
        refused: draws that gave no passage, by reason: for the metrics.
        source_counts: what the source came to beside texts, by name: the same.
        engine: what light verifiers borrow; None: nothing.
        registry: where metrics go; an oracle's own by default, so that several can share a process.
    """

    def __init__(
        self,
        *,
        writer: PeriodWriter,
        source: str,
        chain: Chain,
        signer: Signer,
        settings: OracleSettings,
        refused: CountsOf = dict,
        source_counts: CountsOf = dict,
        clock: Clock | None = None,
        registry: CollectorRegistry | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._source = source
        self._signer = signer
        self._hotkey = Hotkey(signer.ss58_address)
        self._settings = settings
        self._clock = clock or Clock()
        self._registry = registry or CollectorRegistry()
        self._metrics = OracleMetrics(self._registry, refused, source_counts)
        self._view = ChainView(chain, self._clock.monotonic_s)
        self._log = structlog.get_logger("targon.oracle")
        self._stop = anyio.Event()
        self._preparer: Preparer | None = None
        self._turns: Turns | None = None

    def stop(self) -> None:
        """Ask :meth:`run` to end. What it has committed to is on disk, and goes on when it is run again."""
        self._stop.set()

    def ailing(self) -> str | None:
        """What keeps it from giving private inputs now, or soon will, in words; None if nothing does."""
        if self._preparer is None or self._turns is None:
            return "it doesn't serve yet"
        return self._view.trouble or self._turns.trouble or self._preparer.trouble

    async def run(self, *, task_status: TaskStatus[Axon] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` is called, or cancelled. Reports where once it answers.

        Raises:
            PortInUse: before anything else is started.
            BadSettings: if the address is none.
            FolderTaken, Damaged, StoreUnavailable: if its files are in use, or aren't what it wrote.
            CannotStart: if the chain does not answer.
        """
        settings = self._settings
        over_tls = settings.serves_tls()
        with ExitStack() as stack:
            sock = stack.enter_context(bind(settings.host, settings.port))
            operations = None
            if settings.metrics_port is not None:
                operations = stack.enter_context(
                    bind("127.0.0.1", settings.metrics_port, flag="--metrics.port")
                )
            stack.enter_context(_held(settings.folder))
            try:
                await self._view.open()
            except ChainError as error:
                raise CannotStart(f"the chain can't be read ({error}); see --subtensor.network") from error
            book = stack.enter_context(await anyio.to_thread.run_sync(self._book))
            if book.last is not None:
                self._metrics.committed(book.last)
            folder = await anyio.to_thread.run_sync(PeriodFolder, settings.folder / "periods")
            turns = self._turns = Turns(book, folder, self._view)
            preparer = self._preparer = Preparer(
                writer=self._writer,
                book=book,
                folder=folder,
                view=self._view,
                signer=self._signer,
                settings=settings,
                metrics=self._metrics,
            )
            service = OracleService(
                signer=self._signer,
                source=self._source,
                view=self._view,
                book=book,
                folder=folder,
                turns=turns,
                preparer=preparer,
                metrics=self._metrics,
                identity=None if self._engine is None else self._engine.identity,
            )
            tls = ServerTls(self._signer, clock=self._clock) if over_tls else None
            async with anyio.create_task_group() as tasks:
                await tasks.start(lambda task_status: self._serve(sock, service, tls, task_status))
                if operations is not None:
                    app = operations_app(self._registry, self.ailing)
                    tasks.start_soon(lambda: serve(app, operations, limits=settings.limits))
                tasks.start_soon(self._view.run)
                tasks.start_soon(turns.run)
                tasks.start_soon(preparer.run)
                place = Axon(settings.host, bound_port(sock))
                self._log.info("oracle serves", at=str(place), source=self._source, tls=over_tls)
                task_status.started(place)
                await self._stop.wait()
                tasks.cancel_scope.cancel()

    def _book(self) -> CommitmentBook:
        info = self._view.info
        return CommitmentBook(
            self._settings.folder / "commitments.jsonl",
            genesis=info.genesis,
            netuid=info.netuid,
            oracle=self._hotkey,
        )

    async def _serve(
        self,
        sock: socket.socket,
        service: OracleService,
        tls: ServerTls | None,
        task_status: TaskStatus[None],
    ) -> None:
        limits = self._settings.limits
        routes = {
            "/v1/private-input": Route("GET", service.private_input, takes_body=False, takes_query=True)
        }
        if self._engine is not None:
            lent = ReferenceLimits()
            limits = replace(limits, max_body_bytes=lent.max_task_bytes)
            routes |= self._desk(self._engine, lent).routes
        gate = Gate(
            receiver=self._hotkey,
            routes=routes,
            open_routes={
                "/healthz": b'{"status":"ok"}',
                "/v1/status": OpenRoute(service.status),
                "/v1/commitments": OpenRoute(service.commitments, takes_query=True),
                "/v1/reveals/": OpenRoute(service.reveal, takes_more=True),
            },
            policy=self._view.admit,
            limits=limits,
            registry=self._registry,
            clock=self._clock,
        )
        await serve(gate, sock, limits=limits, tls=tls, task_status=task_status)

    def _desk(self, engine: Engine, limits: ReferenceLimits) -> ReferenceDesk:
        info = self._view.info
        return ReferenceDesk(
            engine,
            self._signer,
            genesis=info.genesis,
            netuid=info.netuid,
            newest=lambda: self._view.head,
            limits=limits,
            clock=self._clock,
        )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other oracles off a folder; the kernel lets go of it when this process ends, however it does.

    Raises:
        FolderTaken: if another one works with it.
        StoreUnavailable: if it can't be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{folder}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderTaken(str(folder)) from None
        yield
    finally:
        os.close(descriptor)
