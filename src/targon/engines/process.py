"""An engine in a process of its own: ``python -m targon.engines.process --socket PATH``.

It serves until SIGTERM or SIGINT and then removes its socket. All it says goes to stderr, as log lines.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from targon.engines.errors import EngineError
from targon.engines.model_thread import share_the_cores
from targon.engines.server import refuse_if_served, serve_engine

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine until a signal asks it to stop; returns the exit code."""
    options = _parser().parse_args(arguments)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.disable(logging.WARNING)  # what libraries say there is no operator's business
    exit_code = 0
    try:
        anyio.run(_serve_until_stopped, options)
    except* (EngineError, ValueError) as group:
        log.error("engine cannot run", error="; ".join(str(error) for error in group.exceptions))
        exit_code = 1
    return exit_code


async def _serve_until_stopped(options: argparse.Namespace) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
        if options.stop_with_stdin:
            tasks.start_soon(_stop_at_end_of_stdin, tasks.cancel_scope)
        await to_thread.run_sync(refuse_if_served, options.socket)
        log.info("engine loading", model=options.model, dtype=options.dtype, variant=options.variant)
        # imported late: the parser and the refusals above need no torch, and it reads the environment once
        share_the_cores()
        from targon.engines.transformers_engine import open_transformers_engine

        async with (
            open_transformers_engine(
                options.model,
                name=options.name,
                dtype=options.dtype,
                variant=options.variant,
                threads=options.threads,
                max_batch=options.max_batch,
                max_queue=options.max_queue,
            ) as engine,
            serve_engine(engine, options.socket),
        ):
            identity = engine.identity
            log.info("engine serving", socket=str(options.socket), model=identity.name, dtype=identity.dtype)
            await anyio.sleep_forever()


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("engine stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return


async def _stop_at_end_of_stdin(scope: anyio.CancelScope) -> None:
    """The other end of stdin is the process that started us; it closes when that dies."""
    while True:
        await anyio.wait_readable(0)
        if not os.read(0, 4096):
            log.info("engine stopping", reason="stdin closed")
            scope.cancel()
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m targon.engines.process", description="Serve a model on a Unix domain socket."
    )
    parser.add_argument("--socket", type=Path, required=True, help="where to serve; its folder must be 0700")
    parser.add_argument("--model", default="default", help="a model folder, or 'default'")
    parser.add_argument("--name", default=None, help="the name that requests use (default: the model's)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--variant", default=None, help="run less than the model: int4, kv8, skip:N …")
    parser.add_argument("--threads", type=int, default=None, help="threads that torch may use")
    parser.add_argument("--max-batch", type=int, default=8, help="completions decoded at once")
    parser.add_argument("--max-queue", type=int, default=64, help="how many more may wait")
    parser.add_argument(
        "--stop-with-stdin", action="store_true", help="stop when stdin closes: when the starter is gone"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
