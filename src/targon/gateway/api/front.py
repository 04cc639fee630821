"""The half of a gateway that faces users, as something that runs: bound, served, drained."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import anyio
import structlog
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from targon.gateway.api.app import make_app
from targon.gateway.api.cors import Cors
from targon.gateway.api.handler import Bounds, Handler
from targon.gateway.api.metrics import GatewayMetrics
from targon.gateway.errors import NotAllowed
from targon.gateway.keyring import KeyRing
from targon.gateway.ports import Orders
from targon.transport import Limits, bind, bound_port, serve

LIMITS = Limits(
    max_body_bytes=2 << 20,  # the longest contexts, several times over
    max_connections=16_384,
    max_connections_per_address=16_384,  # behind a proxy, everybody has its address
    idle_timeout_s=75,
    send_buffer_bytes=1 << 17,  # else whoever doesn't read costs megabytes, and isn't seen not to read
)
CUT_S = 2.0
"""After the drain's deadline: for streams that were cut to say so."""

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSettings:
    """Where users are served, and how."""

    host: str = "127.0.0.1"
    port: int = 8888
    """0: any free one."""
    tls_cert: Path | None = None
    """Certificate chain in PEM; None: plain HTTP."""
    tls_key: Path | None = None
    plain: bool = False
    """Serve plain HTTP beyond this machine all the same."""
    origins: tuple[str, ...] = ()
    """Pages in a browser that may call; ``*``: all."""
    drain_s: float = 30.0
    """What is running when the gateway stops has so long to end."""
    notice_s: float = 0.0
    """How long ``/healthz`` says that the gateway is stopping before it accepts nothing more."""
    access_log: bool = False
    bounds: Bounds = field(default_factory=Bounds)


class Door:
    """The port that users come to, taken before anything dear is started. A context manager: it gives the port back."""

    def __init__(self, settings: FrontSettings) -> None:
        """Take the port; nobody is served yet.

        Raises:
            NotAllowed: users would be served beyond this machine without TLS, or the certificate can't be used.
            PortInUse: naming the port and what to do.
        """
        self.settings = settings
        self.tls = _tls(settings)
        self.socket = bind(settings.host, settings.port, flag="--gateway.port")
        self.port = bound_port(self.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/v1"


class Front:
    """Serves users by HTTP. Built from its ports; :meth:`run` runs it once."""

    def __init__(
        self,
        orders: Orders,
        keys: KeyRing,
        door: Door,
        *,
        ailing: Callable[[], str | None] = lambda: None,
        registry: CollectorRegistry | None = None,
        published: Sequence[Route] = (),
        limits: Limits = LIMITS,
    ) -> None:
        """Build it; nobody is served yet.

        Args:
            ailing: why orders can't be fulfilled now, in words; None: they can.
            published: further routes, for anybody.
        """
        self._settings = settings = door.settings
        self._keys = keys
        self._door = door
        self._limits = limits
        self._ailing = ailing
        self._stop = anyio.Event()
        self._handler = Handler(
            orders,
            keys,
            limits=limits,
            bounds=settings.bounds,
            cors=Cors(settings.origins),
            metrics=GatewayMetrics(registry or CollectorRegistry()),
            rest=make_app(orders, keys, created=int(time.time()), unready=self.ailing, more=published),
            access_log=settings.access_log,
        )

    def ailing(self) -> str | None:
        """Why no new requests should be sent here; None: they may."""
        return "stopping" if self._stop.is_set() else self._ailing()

    def stop(self) -> None:
        """Ask :meth:`run` to end: after ``notice_s`` nothing new is accepted, what runs has ``drain_s`` to end."""
        self._stop.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` is called and everything that was running has ended."""
        settings = self._settings
        logger.info("serving_users", url=self._door.url, drain_s=settings.drain_s)
        cutting = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keys.run)
                await tasks.start(self._serve)
                task_status.started()
                await self._stop.wait()
                if settings.notice_s:
                    await anyio.sleep(settings.notice_s)
                self._handler.draining = True
                logger.info("draining", running=self._handler.running)
                loop = asyncio.get_running_loop()
                cutting = loop.call_later(settings.drain_s, self._handler.cut)
                tasks.cancel_scope.cancel()
        finally:
            if cutting is not None:
                cutting.cancel()
            with anyio.CancelScope(shield=True):
                await self._keys.keep_up()

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        await serve(
            self._handler,
            self._door.socket,
            limits=self._limits,
            tls=self._door.tls,
            grace_s=int(self._settings.drain_s + CUT_S),
            task_status=task_status,
        )


class UserTls:
    """A server's end of TLS with a certificate that users' clients know."""

    def __init__(self, cert: Path, key: Path | None) -> None:
        """Read them.

        Raises:
            NotAllowed: if they can't be used.
        """
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_alpn_protocols(["http/1.1"])
        try:
            self._context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise NotAllowed(
                f"--gateway.tls_cert {cert}: {error}; expected a certificate chain in PEM, and its key there or in "
                "--gateway.tls_key"
            ) from error

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._context


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(settings: FrontSettings) -> UserTls | None:
    if settings.tls_cert is not None:
        return UserTls(settings.tls_cert, settings.tls_key)
    if settings.tls_key is not None:
        raise NotAllowed(
            "--gateway.tls_key: got a key alone, expected its certificate in --gateway.tls_cert, too"
        )
    if not is_loopback(settings.host) and not settings.plain:
        raise NotAllowed(
            f"--gateway.ip {settings.host}: got an address beyond this machine without TLS, where keys and "
            "prompts could be read on the way; give --gateway.tls_cert and --gateway.tls_key, or leave it on "
            "loopback behind a proxy that has them, or say --gateway.plain if the network between is yours alone"
        )
    return None
