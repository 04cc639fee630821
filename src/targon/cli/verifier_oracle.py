"""What a verifier takes from oracles, as it follows from its options: private inputs, and a light one its engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from targon.chain import Chain
from targon.cli.errors import CommandError
from targon.cli.verifier_oracle_options import VerifierOracleOptions
from targon.protocol.keys import Signer
from targon.protocol.primitives import Hotkey
from targon.transport import Deadlines, NeuronClient, OracleClient, speaks_tls
from targon.verifier import Journal, PrivateInputs
from targon.verifier.borrowed import BorrowedEngine, borrow
from targon.verifier.fallback_inputs import FallbackInputs, InputMetrics
from targon.verifier.lenders import Lender, Lenders
from targon.verifier.permit import Permit
from targon.verifier.reliance import Reliance
from targon.verifier.remote_inputs import INPUT_S, RemoteInputs
from targon.verifier.told import Told

logger = structlog.get_logger(__name__)

BORROW_S: Final = 120.0
"""How long oracles may take until they lend their engines: one that starts loads its model first."""

DEADLINES = Deadlines(connect_s=3.0, first_byte_s=INPUT_S, between_bytes_s=INPUT_S, total_s=INPUT_S)


@asynccontextmanager
async def opened_inputs(
    options: VerifierOracleOptions,
    own: PrivateInputs,
    *,
    chain: Chain,
    journal: Journal,
    reliance: Reliance,
    signer: Signer,
    registry: CollectorRegistry,
) -> AsyncGenerator[FallbackInputs]:
    """A verifier's private inputs; their ``run`` is to run beside it."""
    metrics = InputMetrics(registry)
    permit = Permit(chain, Hotkey(signer.ss58_address))
    async with AsyncExitStack() as stack:
        oracles = []
        for hotkey, address in options.named:
            client = await stack.enter_async_context(
                OracleClient(deadlines=DEADLINES, tls="on" if address.tls else "off")
            )
            if not address.tls and _is_far(address.host):
                logger.warning(
                    "oracle_in_the_clear",
                    oracle=hotkey,
                    effect="whoever is on the way can read private inputs before provers see them",
                )
            oracles.append(
                RemoteInputs(
                    hotkey,
                    address.host,
                    address.port,
                    client=client,
                    signer=signer,
                    chain=chain,
                    journal=journal,
                    permit=permit,
                    tell=metrics.trouble,
                    pardoned=hotkey in options.pardoned,
                )
            )
        yield FallbackInputs(
            oracles,
            own,
            chain=chain,
            journal=journal,
            permit=permit,
            reliance=reliance,
            metrics=metrics,
        )


@asynccontextmanager
async def borrowed_engine(
    options: VerifierOracleOptions,
    *,
    chain: Chain,
    signer: Signer,
    registry: CollectorRegistry,
    folder: Path,
) -> AsyncGenerator[BorrowedEngine]:
    """The engine of a light verifier, which the oracles lend.

    Raises:
        CommandError: if no oracle is named.
        EngineUnavailable: if too few of them answer for BORROW_S.
    """
    if not options.named:
        raise CommandError(
            "--neuron.light: got no --oracle.url, expected the oracles whose engines are to be borrowed"
        )
    info = await chain.info()
    async with AsyncExitStack() as stack:
        lenders = []
        for hotkey, address in options.named:
            client = await stack.enter_async_context(NeuronClient(tls="on" if address.tls else "off"))
            lenders.append(Lender(hotkey, address, client))
        asked = Lenders(lenders, signer, genesis=info.genesis, netuid=info.netuid, registry=registry)
        yield await borrow(asked, options.needed, Told(folder), patience_s=BORROW_S)


def _is_far(host: str) -> bool:
    try:
        return speaks_tls("auto", host)
    except ValueError:
        return host != "localhost"
