"""``targon verifier``: every dependency of a running verifier, on one screen."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import structlog
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.audit import Exporter
from targon.chain import Chain, open_chain
from targon.cli.engine import check_reference, opened_engine
from targon.cli.errors import CommandError
from targon.cli.keys import open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.logs import SEGMENTS, opened_log
from targon.cli.memory import seldom_searched
from targon.cli.operations import named_registry
from targon.cli.publishing import OwnWork
from targon.cli.serving_users import MAX_CALLS, VerifierGateway, opened_door, opened_keys, raise_file_limit
from targon.cli.updating import run_with_updates
from targon.cli.verifier_options import VerifierOptions
from targon.cli.verifier_oracle import borrowed_engine, opened_inputs
from targon.engines import Engine, ModelIdentity, open_sentence_embedder
from targon.gateway.segments import segment_routes
from targon.oracle import OracleError, Passage, StandardLibraryText
from targon.protocol.draws import SECRET_BYTES
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.profile import PROFILES
from targon.transport import Deadlines, NeuronClient
from targon.updates import restart
from targon.verification import Calibration, CalibrationError, find_calibration
from targon.verifier import (
    AxonSettings,
    Journal,
    PrivateInputUnavailable,
    Serving,
    Verifier,
    VerifierSettings,
)
from targon.verifier.reliance import Reliance

logger = structlog.get_logger(__name__)


def run(options: VerifierOptions, flags: Sequence[str] = ()) -> int:
    """Verify until a signal, or an update."""
    configure_logging(
        debug=options.logging.debug,
        trace=options.logging.trace,
        json_lines=options.logging.json_lines,
    )
    # users' requests pass through this process, in many small pieces
    updated = anyio.run(
        _verify, options, flags, open_hotkey(options.wallet), backend_options={"use_uvloop": True}
    )
    return restart() if updated else 0


def settings_of(options: VerifierOptions) -> VerifierSettings:
    """What the role is told."""
    return VerifierSettings(
        sample_size=options.neuron.sample_size,
        disable_set_weights=options.neuron.disable_set_weights,
        vpermit_tao_limit=options.neuron.vpermit_tao_limit,
        min_tokens=options.neuron.min_tokens,
        max_tokens=options.neuron.max_tokens,
        compute_stats_interval=options.neuron.compute_stats_interval,
    )


def axon_of(options: VerifierOptions) -> AxonSettings:
    """Where it serves."""
    return AxonSettings(
        host=options.axon.ip,
        port=options.axon.port,
        external_host=options.axon.external_ip or None,
        external_port=options.axon.external_port or None,
        tls=options.axon.tls,
    )


def deadlines_of(options: VerifierOptions) -> Deadlines:
    """How long a prover has."""
    timeout_s = options.neuron.timeout
    return Deadlines(first_byte_s=timeout_s, between_bytes_s=timeout_s, total_s=timeout_s)


async def _verify(options: VerifierOptions, flags: Sequence[str], signer: Keypair) -> bool:
    folder = options.data.path.expanduser()
    async with AsyncExitStack() as stack:
        # told now, not after an engine's minutes of loading
        door = None if options.gateway.off else stack.enter_context(opened_door(options.gateway))
        raise_file_limit()
        chain = await open_chain(options.subtensor.chain_endpoint, options.netuid, options.subtensor.network)
        stack.push_async_callback(chain.aclose)
        await chain.require_uid(Hotkey(signer.ss58_address))
        keys = None
        if door is not None:
            keys = await stack.enter_async_context(opened_keys(options.gateway, folder))
        secret = await anyio.to_thread.run_sync(master_secret, folder)
        log = await stack.enter_async_context(opened_log(options, read_only=False))
        serving = None
        if not options.neuron.axon_off:
            readable = await stack.enter_async_context(opened_log(options, read_only=True))
            serving = Serving(log=readable, axon=axon_of(options))
        registry = named_registry("verifier", "verifier")
        engine = await stack.enter_async_context(opened_reference(options, chain, signer, registry))
        journal = await Journal.open(log)
        published = await stack.enter_async_context(opened_log(options, read_only=True))
        exporter = Exporter(folder / SEGMENTS, published, signer, OwnWork(folder))
        client = await stack.enter_async_context(
            NeuronClient(deadlines=deadlines_of(options), tls=options.neuron.tls, max_connections=MAX_CALLS)
        )
        reliance = Reliance(journal)
        inputs = await stack.enter_async_context(
            opened_inputs(
                options.oracle,
                EmbeddedInputs(await anyio.to_thread.run_sync(StandardLibraryText)),
                chain=chain,
                journal=journal,
                reliance=reliance,
                signer=signer,
                registry=registry,
            )
        )
        embedder = None
        if not options.neuron.light:
            embedder = await stack.enter_async_context(open_sentence_embedder())
        verifier = Verifier(
            chain=chain,
            journal=journal,
            engine=engine,
            calibration=await anyio.to_thread.run_sync(_find_calibration, options, engine.identity),
            embedder=embedder,
            client=client,
            inputs=inputs,
            signer=signer,
            profile=PROFILES[options.profile].model_copy(
                update={"ema_alpha": options.neuron.moving_average_alpha}
            ),
            settings=settings_of(options),
            master_secret=secret,
            random_bytes=os.urandom,
            folder=folder,
            serving=serving,
            metrics_port=options.metrics.port or None,
            registry=registry,
        )
        gateway = VerifierGateway(
            options.gateway,
            door=door,
            keys=keys,
            desk=verifier.desk,
            client=client,
            signer=signer,
            registry=registry,
            published=segment_routes(folder / SEGMENTS),
        )

        async def run() -> None:
            """Verify; beside it, users are served, oracles looked at, and what is released of the log is published."""
            async with anyio.create_task_group() as beside:
                beside.start_soon(reliance.tell_engine, engine, chain)
                beside.start_soon(inputs.run)
                beside.start_soon(exporter.run, lambda: journal.standings)
                await gateway.run_beside(verifier.run, verifier.stop)
                beside.cancel_scope.cancel()

        stack.enter_context(seldom_searched())
        return await run_with_updates(
            options.autoupdate,
            "verifier",
            flags,
            run=run,
            stop=gateway.stop,
            healthy=verifier.is_healthy,
        )


@asynccontextmanager
async def opened_reference(
    options: VerifierOptions, chain: Chain, signer: Keypair, registry: CollectorRegistry
) -> AsyncGenerator[Engine]:
    """The reference: an engine of its own, or, for a light verifier, what oracles lend.

    Raises:
        CommandError: if both are named, or the engine can be no reference.
        EngineUnavailable: if it doesn't answer.
    """
    if not options.neuron.light:
        async with opened_engine(options.engine, options.neuron.given_tgi_endpoint) as engine:
            check_reference(engine)
            yield engine
        return
    if options.engine.model_fields_set or options.neuron.given_tgi_endpoint:
        raise CommandError("--neuron.light: got an engine as well, expected that of the oracles alone")
    folder = options.data.path.expanduser()
    async with borrowed_engine(
        options.oracle, chain=chain, signer=signer, registry=registry, folder=folder
    ) as borrowed:
        yield borrowed


def _find_calibration(options: VerifierOptions, identity: ModelIdentity) -> Calibration | None:
    """The calibration for the reference engine. One that was named must be right; that there is none at all
    is said in the log, and every verdict says it again."""
    named = options.calibration.path
    try:
        return find_calibration(identity, () if named is None else (named.expanduser(),))
    except CalibrationError as error:
        if named is not None:
            raise
        logger.warning("no_calibration", reason=str(error))
        return None


class EmbeddedInputs:
    """The oracle's embedded source, as the verifier asks for it."""

    def __init__(self, source: StandardLibraryText) -> None:
        self._source = source

    async def private_input(self, block: Block, draw: int) -> Passage:
        try:
            return await self._source.private_input(block, draw)
        except OracleError as error:
            raise PrivateInputUnavailable(str(error)) from error


def master_secret(folder: Path) -> bytes:
    """The secret from which every interval's secret is derived; made on first use, readable by its owner only.

    Raises:
        CommandError: if the file is not what it should be.
    """
    path = folder / "draws.secret"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_bytes()
    else:
        secret = secrets.token_bytes(SECRET_BYTES)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
    if len(secret) != SECRET_BYTES:
        raise CommandError(
            f"{path}: got {len(secret)} bytes, expected {SECRET_BYTES}. It was damaged; without it no open interval's "
            "draws can be revealed. Restore it from a backup, or begin anew with another --data.path"
        )
    return secret
