"""The options that commands share, under the dotted names that operators know.

Each option is a flag (``--wallet.name``) and an environment variable (``TARGON_PROVER__WALLET__NAME``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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

    chain_endpoint: str = ""
    """Where the chain is: sqlite:///path/to/chain.sqlite for an embedded one."""


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


class LoggingOptions(Options):
    """What is logged, to standard error."""

    debug: bool = False
    """Log each step as well."""
    json_lines: bool = False
    """One JSON object a line, for machines."""


class MetricsOptions(Options):
    """Figures for Prometheus, on loopback."""

    port: int = Field(0, ge=0, le=65_535)
    """Port on 127.0.0.1 for /metrics and /healthz; 0: none."""
