"""The gateway's parts as a process runs them: within a verifier, or by themselves beside one."""

from __future__ import annotations

import resource
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from targon.cli.gateway_options import FrontOptions, VerifierGatewayOptions
from targon.gateway.api import Door, Front, FrontSettings, is_loopback
from targon.gateway.dispatch import Dispatcher
from targon.gateway.errors import NotAllowed
from targon.gateway.keyring import KeyRing
from targon.gateway.keys import FILE_NAME, KeyFile
from targon.gateway.line import LineServer
from targon.gateway.ports import Desk
from targon.protocol.keys import Signer
from targon.transport import NeuronClient

MAX_ORDERS = 10_000
"""Orders that a verifier takes at once."""
MAX_CALLS = 2 * MAX_ORDERS + 256
"""Connections to provers of a verifier with a gateway: an order may have two, and challenges leave that way, too."""


def settings_of(options: FrontOptions) -> FrontSettings:
    """What the front is told."""
    return FrontSettings(
        host=options.ip,
        port=options.port,
        tls_cert=None if options.tls_cert is None else options.tls_cert.expanduser(),
        tls_key=None if options.tls_key is None else options.tls_key.expanduser(),
        plain=options.plain,
        origins=tuple(origin.strip() for origin in options.origins.split(",") if origin.strip()),
        drain_s=options.drain,
        notice_s=options.notice,
        access_log=options.access_log,
    )


def opened_door(options: FrontOptions) -> Door:
    """The port that users come to.

    Raises:
        NotAllowed: users would be served whom nobody should serve, or in the clear.
        PortInUse: naming the port and what to do.
    """
    if options.open and not is_loopback(options.ip):
        raise NotAllowed(
            f"--gateway.open: got the address {options.ip}, expected loopback: beyond this machine everybody could "
            "ask; make keys with 'targon key create'"
        )
    return Door(settings_of(options))


@asynccontextmanager
async def opened_keys(options: FrontOptions, folder: Path) -> AsyncGenerator[KeyRing, None]:
    """The keys in a folder, for as long as the block lasts; then what was used is written.

    Raises:
        KeyFileBroken: they can't be read.
    """
    file = await anyio.to_thread.run_sync(KeyFile, folder / FILE_NAME)
    keys = KeyRing(file, open_to_all=options.open)
    try:
        yield keys
    finally:
        with anyio.CancelScope(shield=True):
            await keys.aclose()


class VerifierGateway:
    """The gateway within a verifier: users' front, the dispatcher, and the line for a front elsewhere."""

    def __init__(
        self,
        options: VerifierGatewayOptions,
        *,
        door: Door | None,
        keys: KeyRing | None,
        desk: Desk,
        client: NeuronClient,
        signer: Signer,
        registry: CollectorRegistry,
        published: Sequence[Route] = (),
    ) -> None:
        """Build it; nothing is started.

        Args:
            door: where users come; None: no users are served here.
            keys: whom to serve, if there is a door.
            published: further routes, for anybody.
        """
        self._published = published
        self._options = options
        self._door, self._keys = door, keys
        self._registry = registry
        self._asked = anyio.Event()
        self._dispatcher = Dispatcher(
            desk=desk, client=client, signer=signer, registry=registry, max_running=MAX_ORDERS
        )

    def stop(self) -> None:
        """Ask :meth:`run_beside` to end."""
        self._asked.set()

    async def run_beside(self, run: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
        """Serve users while the verifier runs. When :meth:`stop` is called, users come first: what they were promised
        is still settled by the verifier, which is stopped after them.

        Args:
            run: runs the verifier.
            stop: asks it to end.
        """
        socket = self._options.socket
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._dispatcher.run)
            if socket is not None:
                await tasks.start(LineServer(self._dispatcher, socket.expanduser()).run)
            if self._door is not None and self._keys is not None:
                front = Front(
                    self._dispatcher,
                    self._keys,
                    self._door,
                    registry=self._registry,
                    published=self._published,
                )
                await tasks.start(front.run)
                tasks.start_soon(self._stop_when_asked, front)
            tasks.start_soon(self._end, stop)
            await run()
            tasks.cancel_scope.cancel()

    async def _stop_when_asked(self, front: Front) -> None:
        await self._asked.wait()
        front.stop()

    async def _end(self, stop: Callable[[], None]) -> None:
        await self._asked.wait()
        await anyio.sleep(self._options.notice)
        await self._dispatcher.drain(self._options.drain)
        stop()


def raise_file_limit() -> None:
    """Let the process have as many open files as the system allows it: each stream takes one or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
