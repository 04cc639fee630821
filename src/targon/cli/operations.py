"""Whose metrics they are."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info

from targon import __version__
from targon.cli.catalog import RoleName


def named_registry(role: RoleName, name: str) -> CollectorRegistry:
    """Where a process's metrics go; they say whose they are."""
    registry = CollectorRegistry()
    info = Info("targon_neuron", "Which process this is.", registry=registry)
    info.info({"role": role, "name": name, "version": __version__})
    return registry
