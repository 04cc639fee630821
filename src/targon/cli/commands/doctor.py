"""``targon doctor``: what a role needs, looked at before it runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import anyio
from bittensor.keyfiles import Keypair
from pydantic import Field
from pydantic_settings import CliPositionalArg, CliSubCommand, CliUnknownArgs, get_subcommand
from rich.console import Console

from targon.chain import Axon, Chain, open_chain
from targon.cli.catalog import NeuronName, RoleName
from targon.cli.engine import API_KEY
from targon.cli.loading import load
from targon.cli.logging import configure_logging
from targon.cli.logs import redis_address
from targon.cli.options import AxonOptions, Options, RoleOptions, Tls
from targon.cli.oracle_options import OracleAxonOptions, OracleOptions
from targon.cli.prover_options import ProverOptions
from targon.cli.verifier_options import VerifierOptions
from targon.doctor import (
    PASSWORD,
    AxonPlace,
    Check,
    Common,
    EnginePlace,
    LogPlace,
    OracleNeeds,
    OraclePlace,
    OraclePlan,
    ProverNeeds,
    Row,
    SqlitePlace,
    VerifierNeeds,
    WalletPlace,
    as_json,
    ask,
    examine,
    is_well,
    oracle_checks,
    plain,
    prover_checks,
    show,
    verifier_checks,
)
from targon.protocol.errors import MalformedMessage
from targon.protocol.keys import public_key
from targon.protocol.primitives import Hotkey
from targon.protocol.profile import PROFILES
from targon.transport import speaks_tls
from targon.verifier import VerifierSettings

DoctoredOptions = RoleOptions | OracleOptions

FILE_WIDTH = 160
"""Columns of the table where no terminal says how many there are."""


class DoctorProver(Options):
    """Check everything that a prover needs. Takes the prover's own flags ('targon prover --help'), and loads everything
    as it does. Ends with 1 if something is bad."""

    flags: CliUnknownArgs
    as_json: bool = Field(False, validation_alias="json")
    """Print what was found as JSON."""

    def run(self) -> int:
        options = _loaded("prover", self.flags)
        assert isinstance(options, ProverOptions)
        return _run(
            "prover", options, lambda opener: prover_checks(prover_needs(options, opener)), self.as_json
        )


class DoctorVerifier(Options):
    """Check everything that a verifier needs. Takes the verifier's own flags ('targon verifier --help'), and loads
    everything as it does. Ends with 1 if something is bad."""

    flags: CliUnknownArgs
    as_json: bool = Field(False, validation_alias="json")
    """Print what was found as JSON."""

    def run(self) -> int:
        options = _loaded("verifier", self.flags)
        assert isinstance(options, VerifierOptions)
        return _run(
            "verifier", options, lambda opener: verifier_checks(verifier_needs(options, opener)), self.as_json
        )


class DoctorOracle(Options):
    """Check everything that an oracle needs. Takes the oracle's own flags ('targon oracle --help'), and loads
    everything as it does. Ends with 1 if something is bad."""

    flags: CliUnknownArgs
    as_json: bool = Field(False, validation_alias="json")
    """Print what was found as JSON."""

    def run(self) -> int:
        options = _loaded("oracle", self.flags)
        assert isinstance(options, OracleOptions)
        return _run(
            "oracle", options, lambda opener: oracle_checks(oracle_needs(options, opener)), self.as_json
        )


class DoctorReach(Options):
    """Ask, from this machine, whether a prover, verifier or oracle answers at an address: a connection, and a signed
    request for its status. Needs no keys: a new one asks, which is refused, and so shows that it is there."""

    ip: CliPositionalArg[str]
    """The address that it announces."""
    port: CliPositionalArg[int]
    """The port."""
    hotkey: CliPositionalArg[str]
    """Its hotkey."""
    tls: Tls = "auto"
    """Ask over TLS; auto: unless the address is loopback."""

    def run(self) -> int:
        return anyio.run(self._reach)

    async def _reach(self) -> int:
        try:
            public_key(Hotkey(self.hotkey))
        except MalformedMessage as error:
            sys.stderr.write(f"targon: {error}\n")
            return 2
        asker = Keypair.create_from_mnemonic(Keypair.generate_mnemonic(12))
        asked = await ask(Axon(self.ip, self.port), Hotkey(self.hotkey), asker, time.monotonic, tls=self.tls)
        mark = "reached" if asked.is_it else "NOT reached"
        sys.stdout.write(f"{mark} within {asked.took_s:.2f} s: {plain(asked.said)}\n")
        return 0 if asked.is_it else 1


class DoctorCommand(Options):
    """Check everything that a role needs, and say what to fix."""

    prover: CliSubCommand[DoctorProver]
    verifier: CliSubCommand[DoctorVerifier]
    oracle: CliSubCommand[DoctorOracle]
    reach: CliSubCommand[DoctorReach]

    def run(self) -> int:
        command = get_subcommand(self)
        assert isinstance(command, DoctorProver | DoctorVerifier | DoctorOracle | DoctorReach)
        return command.run()


class ChainOpener:
    """Opens the chain that the options name, and closes it at the end."""

    def __init__(self, options: DoctoredOptions) -> None:
        self._options = options
        self._stack = AsyncExitStack()

    async def __call__(self) -> Chain:
        subtensor = self._options.subtensor
        chain = await open_chain(subtensor.chain_endpoint, self._options.netuid, subtensor.network)
        self._stack.push_async_callback(chain.aclose)
        return chain

    async def aclose(self) -> None:
        await self._stack.aclose()


def prover_needs(options: ProverOptions, opener: ChainOpener) -> ProverNeeds:
    """What a prover with these options needs."""
    return ProverNeeds(
        common=_common(options, opener, options.neuron.given_tgi_endpoint),
        axon=_axon("prover", options.axon),
        public=_public(options),
    )


def verifier_needs(options: VerifierOptions, opener: ChainOpener) -> VerifierNeeds:
    """What a verifier with these options needs."""
    named = options.calibration.path
    # one that runs with TLS can't be told from another program, from here
    unseen = options.gateway.off or options.gateway.tls_cert is not None
    return VerifierNeeds(
        common=_common(
            options,
            opener,
            options.neuron.given_tgi_endpoint,
            len(options.oracle.named) if options.neuron.light else 0,
        ),
        axon=None if options.neuron.axon_off else _axon("verifier", options.axon),
        public=_public(options),
        log=_log_place(options),
        folder=options.data.path.expanduser(),
        profile=PROFILES[options.profile].model_copy(
            update={"ema_alpha": options.neuron.moving_average_alpha}
        ),
        version_key=VerifierSettings().version_key,
        disable_set_weights=options.neuron.disable_set_weights,
        calibration=None if named is None else named.expanduser(),
        gateway=None if unseen else (options.gateway.ip, options.gateway.port),
        oracles=[
            OraclePlace(hotkey, address.host, address.port, address.tls)
            for hotkey, address in options.oracle.named
        ],
        pardoned=options.oracle.pardoned,
    )


def oracle_needs(options: OracleOptions, opener: ChainOpener) -> OracleNeeds:
    """What an oracle with these options needs."""
    return OracleNeeds(
        common=_common(options, opener, wanted=options.engine.given),
        axon=AxonPlace(
            role="oracle", host=options.axon.ip, port=options.axon.port, tls=_oracle_tls(options.axon)
        ),
        public=_public(options),
        plan=OraclePlan(
            source=options.oracle.source,
            allow_private=options.oracle.allow_private,
            folder=options.data.path.expanduser(),
            places=options.oracle.places,
            period_blocks=options.oracle.period,
        ),
    )


def _oracle_tls(options: OracleAxonOptions) -> Tls:
    """As it serves: by the address that it listens at, since it announces none."""
    try:
        return "on" if speaks_tls(options.tls, options.ip) else "off"
    except ValueError:
        return options.tls


def _log_place(options: VerifierOptions) -> LogPlace:
    folder = options.data.path.expanduser()
    if not options.database.given:
        return SqlitePlace(folder)
    from targon.doctor.redis import RedisPlace  # its client loads slowly

    return RedisPlace(redis_address(options.database), folder)


def _axon(role: NeuronName, options: AxonOptions) -> AxonPlace:
    return AxonPlace(
        role=role,
        host=options.ip,
        port=options.port,
        external_host=options.external_ip or None,
        external_port=options.external_port or None,
        tls=options.tls,
    )


def _public(options: DoctoredOptions) -> bool:
    """Whether the others are on other machines: not on an embedded chain, nor on a node of one's own."""
    subtensor = options.subtensor
    return not subtensor.chain_endpoint.startswith("sqlite:") and _network(options) != "local"


def _network(options: DoctoredOptions) -> str:
    """The network that was chosen by its name; empty: an address was given, and may be of any."""
    return "" if options.subtensor.chain_endpoint else options.subtensor.network


def _common(
    options: DoctoredOptions,
    opener: ChainOpener,
    tgi_endpoint: str = "",
    lenders: int = 0,
    *,
    wanted: bool = True,
) -> Common:
    wallet, engine = options.wallet, options.engine
    return Common(
        wallet=WalletPlace(wallet.name, wallet.hotkey, wallet.path, os.environ.get(PASSWORD)),
        open_chain=opener,
        network=_network(options),
        engine=EnginePlace(
            url=engine.url or tgi_endpoint,
            socket=engine.socket,
            kind="tgi" if tgi_endpoint and not engine.url else None if engine.kind == "auto" else engine.kind,
            model=engine.model,
            name=engine.name,
            dtype=engine.dtype,
            api_key=os.environ.get(API_KEY),
            lenders=lenders,
            wanted=wanted,
        ),
        metrics_port=options.metrics.port or None,
    )


def _loaded(role: RoleName, flags: Sequence[str]) -> DoctoredOptions:
    loaded = load(role, flags, os.environ)
    for warning in loaded.warnings:
        sys.stderr.write(f"targon: warning: {warning}\n")
    options = loaded.options
    assert isinstance(options, DoctoredOptions)
    return options


def _run(
    role: RoleName, options: DoctoredOptions, checks: Callable[[ChainOpener], Sequence[Check]], in_json: bool
) -> int:
    configure_logging(
        debug=options.logging.debug, trace=options.logging.trace, json_lines=options.logging.json_lines
    )

    async def look() -> list[Row]:
        opener = ChainOpener(options)
        try:
            return await examine(checks(opener))
        finally:
            await opener.aclose()

    rows = anyio.run(look)
    if in_json:
        sys.stdout.write(f"{as_json(role, rows)}\n")
    else:
        show(role, rows, Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False))
    return 0 if is_well(rows) else 1
