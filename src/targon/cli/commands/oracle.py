"""``targon oracle``: every dependency of a running oracle, on one screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio
import anyio.to_thread
from bittensor.keyfiles import Keypair

from targon.chain import open_chain
from targon.cli.engine import check_reference, opened_engine
from targon.cli.keys import open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.memory import seldom_searched
from targon.cli.operations import named_registry
from targon.cli.oracle_options import OracleOptions
from targon.cli.serving_users import raise_file_limit
from targon.cli.updating import run_with_updates
from targon.oracle.beside import WriterBeside
from targon.oracle.book import last_seen
from targon.oracle.process import Opening
from targon.oracle.role import Oracle
from targon.oracle.settings import OracleSettings
from targon.oracle.sources.web import shown
from targon.updates import restart

SWITCH_S = 0.0005


def run(options: OracleOptions, flags: Sequence[str] = ()) -> int:
    """Serve until a signal, or an update."""
    configure_logging(
        debug=options.logging.debug,
        trace=options.logging.trace,
        json_lines=options.logging.json_lines,
        neuron=options.neuron.name,
    )
    raise_file_limit()
    # a period is looked at by a thread beside the requests, which would wait ten times as long for their turn
    sys.setswitchinterval(SWITCH_S)
    updated = anyio.run(
        _serve, options, flags, open_hotkey(options.wallet), backend_options={"use_uvloop": True}
    )
    return restart() if updated else 0


def settings_of(options: OracleOptions) -> OracleSettings:
    """What the role is told."""
    return OracleSettings(
        folder=options.data.path.expanduser(),
        host=options.axon.ip,
        port=options.axon.port,
        tls=options.axon.tls,
        metrics_port=options.metrics.port or None,
        period_blocks=options.oracle.period,
        places=options.oracle.places,
        kept_blocks=options.oracle.keep,
    )


def shown_source(spec: str) -> str:
    """A source's name for whoever asks the oracle: without what may be secret in an address."""
    return shown(spec) if "://" in spec else spec


async def _serve(options: OracleOptions, flags: Sequence[str], signer: Keypair) -> bool:
    async with AsyncExitStack() as stack:
        settings = settings_of(options)
        seen = await anyio.to_thread.run_sync(last_seen, settings.folder / "commitments.jsonl", time.time())
        chain = await open_chain(
            options.subtensor.chain_endpoint, options.netuid, options.subtensor.network, seen=seen
        )
        stack.push_async_callback(chain.aclose)
        opening = Opening(
            source=options.oracle.source,
            folder=str(settings.folder),
            allow_private=options.oracle.allow_private,
            json_lines=options.logging.json_lines,
        )
        writer = await stack.enter_async_context(WriterBeside(opening))
        engine = None
        if options.engine.given:
            engine = await stack.enter_async_context(opened_engine(options.engine))
            check_reference(engine)
        oracle = Oracle(
            writer=writer,
            source=shown_source(options.oracle.source),
            chain=chain,
            signer=signer,
            settings=settings,
            refused=lambda: writer.refused,
            source_counts=lambda: writer.came_to,
            registry=named_registry("oracle", options.neuron.name),
            engine=engine,
        )
        stack.enter_context(seldom_searched())
        return await run_with_updates(
            options.autoupdate,
            "oracle",
            flags,
            run=oracle.run,
            stop=oracle.stop,
            healthy=lambda: oracle.ailing() is None,
        )
