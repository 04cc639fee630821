"""``targon gateway``: every dependency of a running gateway that is a process of its own, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio

from targon.cli.gateway_options import GatewayOptions
from targon.cli.logging import configure_logging
from targon.cli.memory import seldom_searched
from targon.cli.operations import named_registry, serve_metrics
from targon.cli.serving_users import opened_door, opened_keys, raise_file_limit
from targon.cli.signals import run_until_signalled
from targon.gateway.api import Front
from targon.gateway.line import LineClient
from targon.transport import bind


def run(options: GatewayOptions, flags: Sequence[str] = ()) -> int:  # noqa: ARG001 - as other roles are run
    """Serve users until a signal."""
    configure_logging(
        debug=options.logging.debug,
        trace=options.logging.trace,
        json_lines=options.logging.json_lines,
    )
    # users' requests pass through this process, in many small pieces
    anyio.run(_serve, options, backend_options={"use_uvloop": True})
    return 0


async def _serve(options: GatewayOptions) -> None:
    async with AsyncExitStack() as stack:
        door = stack.enter_context(opened_door(options.gateway))
        metrics = None
        if options.metrics.port:
            metrics = stack.enter_context(bind("127.0.0.1", options.metrics.port, flag="--metrics.port"))
        raise_file_limit()
        keys = await stack.enter_async_context(opened_keys(options.gateway, options.data.path.expanduser()))
        line = LineClient(options.gateway.socket.expanduser())
        registry = named_registry("gateway", "gateway")
        front = Front(line, keys, door, ailing=lambda: line.ailing, registry=registry)

        async def serve() -> None:
            async with anyio.create_task_group() as tasks:
                await tasks.start(line.run)
                if metrics is not None:
                    tasks.start_soon(serve_metrics, metrics, registry, front.ailing)
                await front.run()
                tasks.cancel_scope.cancel()

        stack.enter_context(seldom_searched())
        await run_until_signalled(serve, front.stop)
