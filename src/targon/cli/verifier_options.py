"""The options of ``targon verifier``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from targon.cli.gateway_options import VerifierGatewayOptions
from targon.cli.options import AxonOptions, Options, RoleOptions, TgiOptions, Tls
from targon.cli.verifier_oracle_options import VerifierOracleOptions


class VerifierAxonOptions(AxonOptions):
    """Where the verifier listens for users and for those who check it, and what address it announces."""

    port: int = Field(8092, ge=1, le=65_535)
    """Port to listen at."""


class CalibrationOptions(Options):
    """How far honest engines differ from this verifier's."""

    path: Path | None = None
    """A calibration, or a folder of them, for the engine's model; without it, what comes with the software."""


class DataOptions(Options):
    """Where the verifier keeps its log and its secret."""

    path: Path = Path("~/.targon/verifier")
    """Folder for the log and for the secret that draws are made from. Keep it: it is the verifier's memory."""


class DatabaseOptions(Options):
    """The Redis that keeps the log, if any of these is given; otherwise SQLite does, in --data.path."""

    host: str = "127.0.0.1"
    """Where Redis listens."""
    port: int = Field(6379, ge=1, le=65_535)
    """Port of Redis."""
    index: int = Field(1, ge=0)
    """Number of the database within Redis."""
    username: str = ""
    """User of Redis (ACL); without it, the server's default user."""
    password: SecretStr = SecretStr("")
    """Password of Redis. Better in the environment or in a file that only you can read than on the command line."""
    tls: bool = False
    """Encrypt the connection to Redis."""
    ca_file: Path | None = None
    """File of the authorities that may vouch for Redis, in PEM; without it, those of the system."""

    @property
    def given(self) -> bool:
        """Whether any of them was given, by whatever source."""
        return bool(self.model_fields_set)


class VerifierNeuronOptions(TgiOptions):
    """How the verifier works."""

    sample_size: int = Field(10, ge=1, le=65_536)
    """How many provers are challenged in a block."""
    disable_set_weights: bool = False
    """Verify, and keep tiers and scores, but set no weights."""
    moving_average_alpha: float = Field(0.05, gt=0.0, le=1.0)
    """Weight of the newest block in a prover's score."""
    light: bool = False
    """Run no engine: borrow those of the oracles that --oracle.url names."""
    axon_off: bool = False
    """Serve nobody, and announce no address."""
    vpermit_tao_limit: float = Field(4096, ge=0.0)
    """A neuron with a validator permit and more stake (TAO) than this is not taken for a prover."""
    compute_stats_interval: int = Field(360, ge=1)
    """Blocks between two lines of statistics in the log output."""
    tls: Tls = "auto"
    """Call provers by TLS; auto: unless they are on this machine."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds that a prover has for a whole answer."""
    min_tokens: int = Field(32, ge=32)
    """Shortest challenge, in tokens."""
    max_tokens: int = Field(128, ge=32)
    """Longest challenge, in tokens."""

    @field_validator("max_tokens")
    @classmethod
    def _no_shorter_than_the_shortest(cls, value: int, info: ValidationInfo) -> int:
        shortest = info.data.get("min_tokens", value)
        if value < shortest:
            raise ValueError(f"expected at least --neuron.min_tokens, {shortest}")
        return value


class VerifierOptions(RoleOptions):
    """Challenge provers, verify their answers, keep tiers and scores, set weights."""

    ALIASES: ClassVar[dict[str, str]] = {"axon_off": "neuron.axon_off"}

    profile: Literal["standard", "demo"] = "standard"
    """The economy's constants: the network's own, or shortened to be tried out."""
    axon: VerifierAxonOptions = VerifierAxonOptions()
    neuron: VerifierNeuronOptions = VerifierNeuronOptions()
    gateway: VerifierGatewayOptions = VerifierGatewayOptions()
    oracle: VerifierOracleOptions = VerifierOracleOptions()
    data: DataOptions = DataOptions()
    database: DatabaseOptions = DatabaseOptions()
    calibration: CalibrationOptions = CalibrationOptions()
