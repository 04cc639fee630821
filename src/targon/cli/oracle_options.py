"""The options of ``targon oracle``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from targon.cli.options import (
    AutoupdateOptions,
    EngineOptions,
    LoggingOptions,
    MetricsOptions,
    Options,
    ProcessOptions,
    SubtensorOptions,
    Tls,
    WalletOptions,
)


class OracleAxonOptions(Options):
    """Where the oracle listens. It is not announced on chain: verifiers are told its address."""

    ip: str = "127.0.0.1"
    """Address to listen at. Loopback unless you say otherwise."""
    port: int = Field(8093, ge=1, le=65_535)
    """Port to listen at."""
    tls: Tls = "auto"
    """Encrypt what callers send and get; auto: unless the oracle listens at loopback."""


class OracleDataOptions(Options):
    """Where the oracle keeps what it has committed to."""

    path: Path = Path("~/.targon/oracle")
    """Folder for commitments, texts, secrets, and what was taken from the source. Keep it: an oracle that forgets
    what it has signed can be made to contradict itself."""


class OracleNeuronOptions(Options):
    """What the process is called."""

    name: str = "oracle"
    """What this process calls itself in its log lines and metrics."""


class OracleSourceOptions(Options):
    """What private inputs are drawn from, and how many there are."""

    source: str = "embedded"
    """The text: embedded, redpajama:PATH or crawl:PATH (folder, file, list of addresses, or a URL), or live:FILE."""
    allow_private: bool = False
    """Read sources from web servers on this machine and in private networks, too."""
    places: int = Field(16, ge=1, le=256)
    """Private inputs of each verifier in each block."""
    period: int = Field(36, ge=1, le=360)
    """Blocks that are committed to at once, at most."""
    keep: int = Field(50_400, ge=0)
    """Blocks for which a period's texts are kept to be revealed after its end; 0: for ever."""


class OracleEngineOptions(EngineOptions):
    """The engine that light verifiers may borrow: none, unless one of these is given."""

    @property
    def given(self) -> bool:
        """Whether any of them was given, by whatever source."""
        return bool(self.model_fields_set)


class OracleOptions(ProcessOptions):
    """Give verifiers private inputs that nobody saw before, each committed to beforehand."""

    netuid: int = Field(4, ge=0, lt=65_536)
    """The subnet."""
    wallet: WalletOptions = WalletOptions()
    subtensor: SubtensorOptions = SubtensorOptions()
    axon: OracleAxonOptions = OracleAxonOptions()
    data: OracleDataOptions = OracleDataOptions()
    oracle: OracleSourceOptions = OracleSourceOptions()
    engine: OracleEngineOptions = OracleEngineOptions()
    neuron: OracleNeuronOptions = OracleNeuronOptions()
    metrics: MetricsOptions = MetricsOptions()
    logging: LoggingOptions = LoggingOptions()
    autoupdate: AutoupdateOptions = AutoupdateOptions()
