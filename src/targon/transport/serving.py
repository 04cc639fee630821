"""Running an HTTP server inside a task group: bound first, started with the group, stopped gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Generator

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from targon.transport.connections import bounded
from targon.transport.errors import PortInUse
from targon.transport.handshakes import bounded_tls
from targon.transport.limits import Limits
from targon.transport.tls import TlsEnd

BACKLOG = 1024
CANCEL_S = 1.0
"""How long a cancelled request may take to clean up when the server ends."""


def bind(host: str, port: int, *, flag: str = "--axon.port") -> socket.socket:
    """Take a port, before anything dear is started. Port 0: any free one.

    Args:
        flag: what the operator would set to choose another port; named in the error.

    Raises:
        PortInUse: naming the port and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is said aloud because asyncio switches Nagle's algorithm off only where it is; with it on, each
    # streamed answer waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Allows a restart while old connections linger; on Linux it does not allow two listeners.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise PortInUse(_why(host, port, flag, error)) from error
    return sock


def bound_port(sock: socket.socket) -> int:
    """The port that a bound socket has."""
    port: int = sock.getsockname()[1]
    return port


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    *,
    limits: Limits,
    tls: TlsEnd | None = None,
    grace_s: int = 5,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then stop accepting, give running requests ``grace_s`` seconds, and end.

    Takes no signal: those are the role's own. Writes no access log: requests are counted, not logged.

    Args:
        tls: serve over TLS with this; None: plain HTTP.
    """
    config = uvicorn.Config(
        app,
        http=bounded(limits) if tls is None else bounded_tls(limits, tls),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,
    )
    server = _Server(config)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                await server.serve(sockets=[sock])

        tasks.start_soon(run)
        try:
            await server.listening.wait()
            task_status.started()
            await anyio.sleep_forever()
        finally:
            server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with a moment at which it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # Those that the grace was not enough for were cancelled; see them, and their connections, end.
        with anyio.move_on_after(CANCEL_S):
            await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _why(host: str, port: int, flag: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is already in use by another program; stop that program "
            f"(`ss -ltnp 'sport = :{port}'` names it) or choose another port with {flag}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs privileges; choose one from 1024 on with {flag}"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; is {host} an address of this machine?"
