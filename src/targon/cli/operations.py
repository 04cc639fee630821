"""Metrics and health of a role that serves nothing else."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
from prometheus_client import CollectorRegistry, Info

from targon import __version__
from targon.cli.catalog import RoleName
from targon.cli.options import MetricsOptions
from targon.transport import Limits, bind, operations_app, serve


def named_registry(role: RoleName, name: str) -> CollectorRegistry:
    """Where a process's metrics go; they say whose they are."""
    registry = CollectorRegistry()
    info = Info("targon_neuron", "Which process this is.", registry=registry)
    info.info({"role": role, "name": name, "version": __version__})
    return registry


@contextmanager
def bound_operations(options: MetricsOptions) -> Generator[socket.socket | None, None, None]:
    """The port of the metrics, taken before anything dear is started; None if none is wanted.

    Raises:
        PortInUse: naming the flag.
    """
    if not options.port:
        yield None
        return
    with bind("127.0.0.1", options.port, flag="--metrics.port") as sock:
        yield sock


@asynccontextmanager
async def served_operations(
    sock: socket.socket | None, registry: CollectorRegistry, ailing: Callable[[], str | None]
) -> AsyncGenerator[None, None]:
    """Metrics and health, for as long as the block lasts."""
    if sock is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        app = operations_app(registry, ailing)
        await tasks.start(lambda task_status: serve(app, sock, limits=Limits(), task_status=task_status))
        yield
        tasks.cancel_scope.cancel()
