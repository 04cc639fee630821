"""``targon doctor``: what a role needs, looked at before it runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import anyio
import anyio.to_thread
from bittensor.keyfiles import Keypair
from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, get_subcommand
from rich.console import Console

from targon.chain import Axon, Chain, open_chain
from targon.cli.commands.prover import ProverCommand
from targon.cli.commands.verifier import VerifierCommand
from targon.cli.engine import API_KEY
from targon.cli.logging import configure_logging
from targon.cli.options import EngineOptions, Options, SubtensorOptions, WalletOptions
from targon.doctor import (
    PASSWORD,
    Check,
    Common,
    EnginePlace,
    ProverNeeds,
    Row,
    SqlitePlace,
    VerifierNeeds,
    WalletPlace,
    as_json,
    ask,
    examine,
    is_well,
    prover_checks,
    show,
    verifier_checks,
)
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import public_key
from targon.protocol.primitives import Hotkey
from targon.protocol.profile import PROFILES
from targon.prover import ProverSettings
from targon.verifier import VerifierSettings

FILE_WIDTH = 160
"""Columns of the table where no terminal says how many there are."""


class DoctorProver(ProverCommand):
    """Check everything that a prover with these flags needs. Ends with 1 if something is bad."""

    as_json: bool = Field(False, alias="json")
    """Print what was found as JSON."""

    def run(self) -> int:
        return _run("prover", self, lambda opener: prover_checks(prover_needs(self, opener)))


class DoctorVerifier(VerifierCommand):
    """Check everything that a verifier with these flags needs. Ends with 1 if something is bad."""

    as_json: bool = Field(False, alias="json")
    """Print what was found as JSON."""

    def run(self) -> int:
        return _run("verifier", self, lambda opener: verifier_checks(verifier_needs(self, opener)))


class DoctorReach(Options):
    """Ask, from this machine, whether a prover answers at an address: a connection, and a signed request for its
    status. Needs no keys: without a wallet a new key asks, which a prover refuses, and so shows that it is there."""

    ip: CliPositionalArg[str]
    """The address that the prover announces."""
    port: CliPositionalArg[int]
    """The port."""
    hotkey: CliPositionalArg[str]
    """The prover's hotkey."""

    def run(self) -> int:
        return anyio.run(self._reach)

    async def _reach(self) -> int:
        try:
            public_key(Hotkey(self.hotkey))
        except MalformedMessage as error:
            sys.stderr.write(f"targon: {error}\n")
            return 2
        asker = Keypair.create_from_mnemonic(Keypair.generate_mnemonic(12))
        asked = await ask(Axon(self.ip, self.port), Hotkey(self.hotkey), asker, time.monotonic)
        mark = "reached" if asked.is_it else "NOT reached"
        sys.stdout.write(f"{mark} within {asked.took_s:.2f} s: {asked.said}\n")
        return 0 if asked.is_it else 1


class DoctorCommand(Options):
    """Check everything that a role needs, and say what to fix."""

    prover: CliSubCommand[DoctorProver]
    verifier: CliSubCommand[DoctorVerifier]
    reach: CliSubCommand[DoctorReach]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, DoctorProver | DoctorVerifier | DoctorReach)
        return command.run()


class ChainOpener:
    """Opens the chain that the flags name, and closes it when the block ends."""

    def __init__(self, options: SubtensorOptions, netuid: int) -> None:
        self._options = options
        self._netuid = netuid
        self._stack = AsyncExitStack()

    async def __call__(self) -> Chain:
        chain = await anyio.to_thread.run_sync(open_chain, self._options.chain_endpoint, self._netuid)
        self._stack.push_async_callback(chain.aclose)
        return chain

    async def aclose(self) -> None:
        await self._stack.aclose()


def prover_needs(options: ProverCommand, opener: ChainOpener) -> ProverNeeds:
    """What a prover with these flags needs."""
    return ProverNeeds(
        common=_common(
            options.wallet,
            options.engine,
            opener,
            tgi_endpoint=options.neuron.given_tgi_endpoint,
            metrics_port=options.metrics.port,
        ),
        settings=ProverSettings(
            host=options.axon.ip,
            port=options.axon.port,
            external_host=options.axon.external_ip or None,
            external_port=options.axon.external_port or None,
        ),
        public=not options.subtensor.chain_endpoint.startswith("sqlite:"),
    )


def verifier_needs(options: VerifierCommand, opener: ChainOpener) -> VerifierNeeds:
    """What a verifier with these flags needs."""
    folder = options.data.path.expanduser()
    named = options.calibration.path
    return VerifierNeeds(
        common=_common(options.wallet, options.engine, opener),
        log=SqlitePlace(folder),
        folder=folder,
        profile=PROFILES[options.profile].model_copy(
            update={"ema_alpha": options.neuron.moving_average_alpha}
        ),
        version_key=VerifierSettings().version_key,
        disable_set_weights=options.neuron.disable_set_weights,
        calibration=None if named is None else named.expanduser(),
    )


def _common(
    wallet: WalletOptions,
    engine: EngineOptions,
    opener: ChainOpener,
    *,
    tgi_endpoint: str = "",
    metrics_port: int = 0,
) -> Common:
    return Common(
        wallet=WalletPlace(wallet.name, wallet.hotkey, wallet.path, os.environ.get(PASSWORD)),
        open_chain=opener,
        engine=EnginePlace(
            url=engine.url or tgi_endpoint,
            socket=engine.socket,
            kind="tgi" if tgi_endpoint and not engine.url else None if engine.kind == "auto" else engine.kind,
            model=engine.model,
            name=engine.name,
            dtype=engine.dtype,
            api_key=os.environ.get(API_KEY),
        ),
        metrics_port=metrics_port or None,
    )


def _run(
    role: str, options: DoctorProver | DoctorVerifier, checks: Callable[[ChainOpener], Sequence[Check]]
) -> int:
    configure_logging(debug=options.logging.debug, json_lines=options.logging.json_lines)

    async def look() -> list[Row]:
        opener = ChainOpener(options.subtensor, options.netuid)
        try:
            return await examine(checks(opener))
        finally:
            await opener.aclose()

    rows = anyio.run(look)
    if options.as_json:
        sys.stdout.write(f"{as_json(role, rows)}\n")
    else:
        show(role, rows, Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False))
    return 0 if is_well(rows) else 1
