"""The options that commands share, under the dotted names that operators know.

Each option of a role is a flag (``--wallet.name``), an environment variable (``TARGON_PROVER__WALLET__NAME``) and a
line of a file (``name`` in the table ``[wallet]``): :mod:`targon.cli.loading`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """Base of every group: a docstring under a field is its help text; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class WalletOptions(Options):
    """Which keys to use. The hotkey signs; the coldkey is never read."""

    name: str = "default"
    """Name of the wallet."""
    hotkey: str = "default"
    """Name of the wallet's hotkey."""
    path: Path = Path("~/.bittensor/wallets")
    """Folder that holds the wallets."""


class SubtensorOptions(Options):
    """Which chain to use."""

    network: Literal["finney", "test", "local"] = "finney"
    """Which of Bittensor's networks, where no --subtensor.chain_endpoint is given."""
    chain_endpoint: str = ""
    """Where the chain is: sqlite:///path/to/chain.sqlite for an embedded one. Wins over --subtensor.network."""


TGI_ENDPOINT = "http://127.0.0.1:8080"
"""Where TGI listens unless it is told otherwise."""


class RemoteModelOptions(Options):
    """Which model an engine over HTTP runs."""

    kind: Literal["auto", "vllm", "sglang", "llama.cpp", "tgi", "openai"] = "auto"
    """Which engine answers at the address; auto: as it says itself."""
    model: str = ""
    """Folder of the model that it runs, or 'default'; the weights needn't be in it. Without it, the folder that
    the engine names, if it is on this machine."""

    name: str = ""
    """The name that requests use, where it isn't that of the model's card or folder; of several models that an
    engine serves the one by that name is taken."""


class EngineOptions(RemoteModelOptions):
    """The engine: one of your own that is running already, or one started for this process alone."""

    url: str = ""
    """Address of a running engine: vLLM, SGLang, llama.cpp's server, TGI, or another OpenAI-compatible one (see
    'targon engine check')."""
    socket: Path | None = None
    """Unix socket of a running engine (see 'targon engine'). Without it, or an address, one is started."""
    dtype: Literal["float32", "bfloat16", ""] = ""
    """Number format of the engine; without it float32 for one that is started, and what it looks like for others."""
    threads: int = Field(0, ge=0)
    """Processor threads of the engine that is started; 0: one per core."""
    max_batch: int = Field(16, ge=1, le=256)
    """Requests that the engine works on at once."""


class TgiOptions(Options):
    """An engine by the flag that operators of TGI know."""

    tgi_endpoint: str = TGI_ENDPOINT
    """Address of a TGI to use as the engine, where it is given (TGI is in maintenance: prefer --engine.url and
    vLLM)."""

    @property
    def given_tgi_endpoint(self) -> str:
        """The address if somebody gave it; the default alone starts no search for an engine."""
        return self.tgi_endpoint if "tgi_endpoint" in self.model_fields_set else ""


Tls = Literal["auto", "on", "off"]
"""Whether a connection is encrypted; auto: unless it stays on this machine."""


class AxonOptions(Options):
    """Where the neuron listens, and what address it announces."""

    ip: str = "127.0.0.1"
    """Address to listen at. Loopback unless you say otherwise."""
    port: int = Field(8091, ge=1, le=65_535)
    """Port to listen at."""
    external_ip: str = ""
    """Address to announce on chain, where it differs (behind NAT, say)."""
    external_port: int = Field(0, ge=0, le=65_535)
    """Port to announce on chain, where it differs; 0: the one listened at."""
    tls: Tls = "auto"
    """Encrypt what callers send and get; auto: unless the announced address is loopback."""


class LoggingOptions(Options):
    """What is logged, to standard error."""

    debug: bool = False
    """Log each step as well."""
    trace: bool = False
    """Log each step, each request, and what libraries log to be debugged with; never keys, bodies or signatures."""
    json_lines: bool = False
    """One JSON object a line, for machines."""


class MetricsOptions(Options):
    """Figures for Prometheus, on loopback."""

    port: int = Field(0, ge=0, le=65_535)
    """Port on 127.0.0.1 for /metrics and /healthz; 0: none."""


class AutoupdateOptions(Options):
    """Whether the neuron follows a channel of releases, and whose."""

    enabled: bool = False
    """Look for new releases, and restart with them."""
    remote: str = "origin"
    """The git remote that releases come from."""
    channel: Literal["stable", "beta"] = "stable"
    """Which releases to follow: beta has candidates and betas as well."""
    interval: float = Field(3600.0, ge=60.0)
    """Seconds between two looks."""
    allowed_signers: Path | None = None
    """File of the keys whose signatures on a release are trusted, in the form of ssh-keygen's allowed signers."""
    pin: str = ""
    """Whole object id of the one commit or tag to be at, whatever is released."""


class ProcessOptions(Options):
    """What every process that runs for long is told."""

    ALIASES: ClassVar[dict[str, str]] = {}
    """Other names that operators know, with the option that each stands for."""

    config: Path | None = None
    """File of options, in TOML: tables named as the flags are. Flags and environment win over it."""


class RoleOptions(ProcessOptions):
    """What both kinds of neuron are told."""

    netuid: int = Field(4, ge=0, lt=65_536)
    """The subnet."""
    wallet: WalletOptions = WalletOptions()
    subtensor: SubtensorOptions = SubtensorOptions()
    engine: EngineOptions = EngineOptions()
    metrics: MetricsOptions = MetricsOptions()
    logging: LoggingOptions = LoggingOptions()
    autoupdate: AutoupdateOptions = AutoupdateOptions()
