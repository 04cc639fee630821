"""``targon prover``: every dependency of a running prover, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio
from bittensor.keyfiles import Keypair

from targon.chain import open_chain
from targon.cli.engine import opened_engine
from targon.cli.keys import open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.memory import seldom_searched
from targon.cli.operations import named_registry
from targon.cli.prover_options import ProverOptions
from targon.cli.updating import run_with_updates
from targon.protocol.primitives import Hotkey
from targon.prover import Prover, ProverSettings
from targon.updates import restart


def run(options: ProverOptions, flags: Sequence[str] = ()) -> int:
    """Serve until a signal, or an update."""
    configure_logging(
        debug=options.logging.debug,
        trace=options.logging.trace,
        json_lines=options.logging.json_lines,
        neuron=options.neuron.name,
    )
    # users' requests pass through this process, in many small pieces
    updated = anyio.run(
        _serve, options, flags, open_hotkey(options.wallet), backend_options={"use_uvloop": True}
    )
    return restart() if updated else 0


def settings_of(options: ProverOptions) -> ProverSettings:
    """What the role is told."""
    return ProverSettings(
        host=options.axon.ip,
        port=options.axon.port,
        external_host=options.axon.external_ip or None,
        external_port=options.axon.external_port or None,
        tls=options.axon.tls,
        metrics_port=options.metrics.port or None,
        force_verifier_permit=options.blacklist.force_verifier_permit,
        allow_non_registered=options.blacklist.allow_non_registered,
    )


async def _serve(options: ProverOptions, flags: Sequence[str], signer: Keypair) -> bool:
    async with AsyncExitStack() as stack:
        chain = await open_chain(options.subtensor.chain_endpoint, options.netuid, options.subtensor.network)
        stack.push_async_callback(chain.aclose)
        # told now, not after an engine's minutes of loading
        await chain.require_uid(Hotkey(signer.ss58_address))
        prover = Prover(
            engine=await stack.enter_async_context(
                opened_engine(options.engine, options.neuron.given_tgi_endpoint)
            ),
            chain=chain,
            signer=signer,
            settings=settings_of(options),
            registry=named_registry("prover", options.neuron.name),
        )
        stack.enter_context(seldom_searched())
        return await run_with_updates(
            options.autoupdate,
            "prover",
            flags,
            run=prover.run,
            stop=prover.stop,
            healthy=lambda: prover.ailing() is None,
        )
