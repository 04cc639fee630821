"""``targon verifier``: every dependency of a running verifier, on one screen."""

from __future__ import annotations

import os
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import anyio
import structlog
from pydantic import Field

from targon.chain import open_chain
from targon.cli.engine import check_reference, opened_engine
from targon.cli.errors import CommandError
from targon.cli.keys import open_hotkey
from targon.cli.logging import configure_logging
from targon.cli.options import EngineOptions, LoggingOptions, Options, SubtensorOptions, WalletOptions
from targon.cli.signals import run_until_signalled
from targon.engines import ModelIdentity
from targon.ledger import SqliteLog
from targon.oracle import OracleError, Passage, StandardLibraryText
from targon.protocol.draws import SECRET_BYTES
from targon.protocol.primitives import Block
from targon.protocol.profile import PROFILES
from targon.transport import Deadlines, NeuronClient, Tls
from targon.verification import Calibration, CalibrationError, find_calibration
from targon.verifier import Journal, PrivateInputUnavailable, Verifier, VerifierSettings

logger = structlog.get_logger(__name__)


class CalibrationOptions(Options):
    """How far honest engines differ from this verifier's."""

    path: Path | None = None
    """A calibration, or a folder of them, for the engine's model; without it, what comes with the software."""


class DataOptions(Options):
    """Where the verifier keeps its log and its secret."""

    path: Path = Path("~/.targon/verifier")
    """Folder for the log and for the secret that draws are made from. Keep it: it is the verifier's memory."""


class NeuronOptions(Options):
    """How the verifier works."""

    sample_size: int = Field(10, ge=1, le=65_536)
    """How many provers are challenged in a block."""
    disable_set_weights: bool = False
    """Verify, and keep tiers and scores, but set no weights."""
    moving_average_alpha: float = Field(0.05, gt=0.0, le=1.0)
    """Weight of the newest block in a prover's score."""
    vpermit_tao_limit: float = Field(4096.0, ge=0.0)
    """A neuron with a validator permit and more stake (TAO) than this is not taken for a prover."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds that a prover has for a whole answer."""
    tls: Tls = "auto"
    """Call provers over TLS, and take none for one that its hotkey doesn't vouch for; auto: unless on loopback."""
    min_tokens: int = Field(32, ge=32)
    """Shortest challenge, in tokens."""
    max_tokens: int = Field(128, ge=32)
    """Longest challenge, in tokens."""


class VerifierCommand(Options):
    """Challenge provers, verify their answers, keep tiers and scores, set weights."""

    netuid: int = Field(4, ge=0, lt=65_536)
    """The subnet."""
    profile: Literal["standard", "demo"] = "standard"
    """The economy's constants: the network's own, or shortened to be tried out."""
    wallet: WalletOptions = WalletOptions()
    subtensor: SubtensorOptions = SubtensorOptions()
    neuron: NeuronOptions = NeuronOptions()
    data: DataOptions = DataOptions()
    engine: EngineOptions = EngineOptions()
    calibration: CalibrationOptions = CalibrationOptions()
    logging: LoggingOptions = LoggingOptions()

    def run(self) -> int:
        configure_logging(debug=self.logging.debug, json_lines=self.logging.json_lines)
        anyio.run(self._verify)
        return 0

    async def _verify(self) -> None:
        signer = open_hotkey(self.wallet)
        if not self.subtensor.chain_endpoint:
            raise CommandError(
                "--subtensor.chain_endpoint is missing: expected sqlite:///path/to/chain.sqlite"
            )
        folder = self.data.path.expanduser()
        secret = await anyio.to_thread.run_sync(master_secret, folder)
        async with AsyncExitStack() as stack:
            chain = await anyio.to_thread.run_sync(open_chain, self.subtensor.chain_endpoint, self.netuid)
            stack.push_async_callback(chain.aclose)
            log = await SqliteLog.open(folder / "log.sqlite")
            stack.push_async_callback(log.aclose)
            engine = await stack.enter_async_context(opened_engine(self.engine))
            check_reference(engine)
            verifier = Verifier(
                chain=chain,
                journal=await Journal.open(log),
                engine=engine,
                calibration=await anyio.to_thread.run_sync(self._find_calibration, engine.identity),
                client=await stack.enter_async_context(
                    NeuronClient(
                        deadlines=Deadlines(
                            first_byte_s=self.neuron.timeout,
                            between_bytes_s=self.neuron.timeout,
                            total_s=self.neuron.timeout,
                        ),
                        tls=self.neuron.tls,
                    )
                ),
                inputs=EmbeddedInputs(await anyio.to_thread.run_sync(StandardLibraryText)),
                signer=signer,
                profile=PROFILES[self.profile].model_copy(
                    update={"ema_alpha": self.neuron.moving_average_alpha}
                ),
                settings=VerifierSettings(
                    sample_size=self.neuron.sample_size,
                    disable_set_weights=self.neuron.disable_set_weights,
                    vpermit_tao_limit=self.neuron.vpermit_tao_limit,
                    min_tokens=self.neuron.min_tokens,
                    max_tokens=self.neuron.max_tokens,
                ),
                master_secret=secret,
                random_bytes=os.urandom,
            )
            await run_until_signalled(verifier.run, verifier.stop)

    def _find_calibration(self, identity: ModelIdentity) -> Calibration | None:
        """The calibration for the reference engine. One that was named must be right; that there is none at all
        is said in the log, and every verdict says it again."""
        named = self.calibration.path
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
