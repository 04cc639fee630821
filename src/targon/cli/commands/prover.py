"""``targon prover``."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
from pydantic import Field

from targon.chain import open_chain
from targon.cli.engine import opened_engine
from targon.cli.errors import CommandError
from targon.cli.keys import open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.options import (
    TGI_ENDPOINT,
    EngineOptions,
    LoggingOptions,
    MetricsOptions,
    Options,
    SubtensorOptions,
    WalletOptions,
)
from targon.cli.signals import run_until_signalled
from targon.prover import Prover, ProverSettings
from targon.transport import Tls


class AxonOptions(Options):
    """Where the prover listens, and what address it announces."""

    ip: str = "127.0.0.1"
    """Address to listen at. Loopback unless you say otherwise."""
    port: int = Field(8091, ge=1, le=65_535)
    """Port to listen at."""
    external_ip: str = ""
    """Address to announce on chain, where it differs (behind NAT, say)."""
    external_port: int = Field(0, ge=0, le=65_535)
    """Port to announce on chain, where it differs; 0: the one listened at."""
    tls: Tls = "auto"
    """Serve over TLS, with a certificate that the hotkey vouches for; auto: unless announced on loopback."""


class BlacklistOptions(Options):
    """Whom to serve."""

    force_verifier_permit: bool = False
    """Serve only callers with a validator permit."""
    allow_non_registered: bool = False
    """Serve callers that are not registered on the subnet, too."""


class NeuronOptions(Options):
    """How the prover runs its model."""

    tgi_endpoint: str = TGI_ENDPOINT
    """Address of a TGI to serve from, where it is given (TGI is in maintenance: prefer --engine.url and vLLM)."""

    @property
    def given_tgi_endpoint(self) -> str:
        """The address if somebody gave it; the default alone starts no search for an engine."""
        return self.tgi_endpoint if "tgi_endpoint" in self.model_fields_set else ""


class ProverCommand(Options):
    """Serve a model to verifiers."""

    netuid: int = Field(4, ge=0, lt=65_536)
    """The subnet."""
    wallet: WalletOptions = WalletOptions()
    subtensor: SubtensorOptions = SubtensorOptions()
    axon: AxonOptions = AxonOptions()
    blacklist: BlacklistOptions = BlacklistOptions()
    neuron: NeuronOptions = NeuronOptions()
    engine: EngineOptions = EngineOptions()
    metrics: MetricsOptions = MetricsOptions()
    logging: LoggingOptions = LoggingOptions()

    def run(self) -> int:
        configure_logging(debug=self.logging.debug, json_lines=self.logging.json_lines)
        anyio.run(self._serve)
        return 0

    async def _serve(self) -> None:
        signer = open_hotkey(self.wallet)
        if not self.subtensor.chain_endpoint:
            raise CommandError(
                "--subtensor.chain_endpoint is missing: expected sqlite:///path/to/chain.sqlite"
            )
        async with AsyncExitStack() as stack:
            chain = await anyio.to_thread.run_sync(open_chain, self.subtensor.chain_endpoint, self.netuid)
            stack.push_async_callback(chain.aclose)
            prover = Prover(
                engine=await stack.enter_async_context(
                    opened_engine(self.engine, self.neuron.given_tgi_endpoint)
                ),
                chain=chain,
                signer=signer,
                settings=ProverSettings(
                    host=self.axon.ip,
                    port=self.axon.port,
                    external_host=self.axon.external_ip or None,
                    external_port=self.axon.external_port or None,
                    tls=self.axon.tls,
                    metrics_port=self.metrics.port or None,
                    force_verifier_permit=self.blacklist.force_verifier_permit,
                    allow_non_registered=self.blacklist.allow_non_registered,
                ),
            )
            await run_until_signalled(prover.run)
