"""A role with automatic updates beside it, if its operator asked for them."""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio

import targon
from targon.cli.catalog import RoleName
from targon.cli.options import AutoupdateOptions
from targon.cli.signals import run_until_signalled
from targon.updates import Plan, Updater, UpdateSettings

SET_UP = ("sh", "scripts/setup.sh", "run")
"""As `make setup` does, without what only developers need. Not by this Python: it may be replaced with the rest."""


async def run_with_updates(
    options: AutoupdateOptions,
    role: RoleName,
    flags: Sequence[str],
    *,
    run: Callable[[], Awaitable[None]],
    stop: Callable[[], None],
    healthy: Callable[[], bool],
) -> bool:
    """Run a role until it is told to stop, or a release was installed.

    Args:
        flags: those that the role was given: the next version must take them, too.
        stop: asks ``run`` to finish what it has begun and to return.
        healthy: whether it does its work now.

    Returns:
        Whether the process is to be started again (:func:`targon.updates.restart`), once everything is closed.

    Raises:
        CannotUpdate: if updates were asked for and can't be had.
    """
    ended = anyio.Event()

    async def run_and_tell() -> None:
        try:
            await run_until_signalled(run, stop)
        finally:
            ended.set()

    async def drain() -> None:
        stop()
        await ended.wait()

    async def is_healthy() -> bool:
        return healthy()

    updater = Updater(
        settings=settings_of(options),
        plan=plan_of(role, flags),
        drain=drain,
        healthy=is_healthy,
        jitter=random.random,
    )
    return await updater.run_beside(run_and_tell)


def settings_of(options: AutoupdateOptions) -> UpdateSettings:
    """What the operator says of updates."""
    signers = options.allowed_signers
    return UpdateSettings(
        enabled=options.enabled,
        remote=options.remote,
        channel=options.channel,
        interval_s=options.interval,
        allowed_signers=None if signers is None else signers.expanduser(),
        pin=options.pin,
    )


def plan_of(role: RoleName, flags: Sequence[str]) -> Plan:
    """How a version of this software is set up and checked. The last check reads the operator's options: one that the
    new version no longer knows would keep it from starting."""
    command = (sys.executable, "-m", "targon.cli")
    return Plan(
        program=Path(targon.__file__),
        set_up=SET_UP,
        checks=((*command, "--version"), (*command, "config", "show", role, *flags)),
    )
