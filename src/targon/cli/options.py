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


class EngineOptions(Options):
    """The engine: one of your own that is running already, or one started for this process alone."""

    socket: Path | None = None
    """Unix socket of a running engine (see 'targon engine'). Without it one is started."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the engine that is started."""
    threads: int = Field(0, ge=0)
    """Processor threads of the engine that is started; 0: one per core."""
    max_batch: int = Field(16, ge=1, le=256)
    """Requests that the engine decodes at once."""


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
