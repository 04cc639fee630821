"""The half of a gateway that faces users, as something that runs: bound, served, drained."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskStatus
from prometheus_client import CollectorRegistry

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


class Front:
    """Serves users by HTTP. Built from its ports; :meth:`run` runs it once."""

    def __init__(
        self,
        orders: Orders,
        keys: KeyRing,
        settings: FrontSettings,
        *,
        registry: CollectorRegistry | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        """Take the port; nothing is served yet.

        Raises:
            NotAllowed: it would serve beyond this machine without TLS, or its certificate can't be used.
            PortInUse: naming the port and what to do.
        """
        self._settings = settings
        self._keys = keys
        self._limits = limits
        self._tls = _tls(settings)
        self._stop = anyio.Event()
        self._handler = Handler(
            orders,
            keys,
            limits=limits,
            bounds=settings.bounds,
            cors=Cors(settings.origins),
            metrics=GatewayMetrics(registry or CollectorRegistry()),
            rest=make_app(orders, keys, created=int(time.time()), unready=self.ailing),
            access_log=settings.access_log,
        )
        self._socket = bind(settings.host, settings.port, flag="--gateway.port")
        self.port = bound_port(self._socket)

    def ailing(self) -> str | None:
        """Why no new requests should be sent here; None: they may."""
        return "stopping" if self._handler.draining else None

    def stop(self) -> None:
        """Ask :meth:`run` to end: nothing new is accepted, what is running has ``drain_s`` to end."""
        self._handler.draining = True
        self._stop.set()

    def close(self) -> None:
        """Give the port back, where it never came to :meth:`run`."""
        self._socket.close()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` is called and everything that was running has ended."""
        settings = self._settings
        logger.info("serving_users", url=self.url, drain_s=settings.drain_s)
        cutting = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keys.run)
                await tasks.start(self._serve)
                task_status.started()
                await self._stop.wait()
                if settings.notice_s:
                    await anyio.sleep(settings.notice_s)
                logger.info("draining", running=self._handler.running)
                loop = asyncio.get_running_loop()
                cutting = loop.call_later(settings.drain_s, self._handler.cut)
                tasks.cancel_scope.cancel()
        finally:
            if cutting is not None:
                cutting.cancel()
            with anyio.CancelScope(shield=True):
                await self._keys.keep_up()

    @property
    def url(self) -> str:
        """Where it is, for the log."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/v1"

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        await serve(
            self._handler,
            self._socket,
            limits=self._limits,
            tls=self._tls,
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
