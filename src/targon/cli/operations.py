"""Whose metrics they are."""

from __future__ import annotations

import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Info

from targon import __version__
from targon.cli.catalog import RoleName
from targon.transport import Limits, operations_app, serve


async def serve_metrics(
    sock: socket.socket, registry: CollectorRegistry, ailing: Callable[[], str | None]
) -> None:
    """Serve ``/metrics`` and ``/healthz`` until cancelled."""
    await serve(operations_app(registry, ailing), sock, limits=Limits())


def named_registry(role: RoleName, name: str) -> CollectorRegistry:
    """Where a process's metrics go; they say whose they are."""
    registry = CollectorRegistry()
    info = Info("targon_neuron", "Which process this is.", registry=registry)
    info.info({"role": role, "name": name, "version": __version__})
    return registry
