"""``targon prover``: every dependency of a running prover, on one screen."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
from bittensor.keyfiles import Keypair

from targon.chain import open_chain
from targon.cli.engine import opened_engine
from targon.cli.keys import open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.operations import named_registry
from targon.cli.prover_options import ProverOptions
from targon.cli.signals import run_until_signalled
from targon.cli.unserved import refuse_unserved
from targon.prover import Prover, ProverSettings


def run(options: ProverOptions) -> int:
    """Serve until a signal."""
    configure_logging(
        debug=options.logging.debug,
        trace=options.logging.trace,
        json_lines=options.logging.json_lines,
        neuron=options.neuron.name,
    )
    refuse_unserved(options)
    anyio.run(_serve, options, open_hotkey(options.wallet))
    return 0


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


async def _serve(options: ProverOptions, signer: Keypair) -> None:
    async with AsyncExitStack() as stack:
        chain = await open_chain(options.subtensor.chain_endpoint, options.netuid, options.subtensor.network)
        stack.push_async_callback(chain.aclose)
        prover = Prover(
            engine=await stack.enter_async_context(
                opened_engine(options.engine, options.neuron.given_tgi_endpoint)
            ),
            chain=chain,
            signer=signer,
            settings=settings_of(options),
            registry=named_registry("prover", options.neuron.name),
        )
        await run_until_signalled(prover.run)
