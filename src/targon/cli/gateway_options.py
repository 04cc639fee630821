"""The options of ``targon gateway``, and those of the gateway within a verifier."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from targon.cli.options import LoggingOptions, MetricsOptions, Options, ProcessOptions


class FrontOptions(Options):
    """Where users are served, and how."""

    ip: str = "127.0.0.1"
    """Address to listen at for users. Loopback unless you say otherwise, and then with TLS."""
    port: int = Field(8888, ge=1, le=65_535)
    """Port to listen at for users."""
    tls_cert: Path | None = None
    """Certificate chain in PEM, for users to call by https; without it, plain HTTP."""
    tls_key: Path | None = None
    """Key of the certificate in PEM, where it is in a file of its own."""
    plain: bool = False
    """Serve plain HTTP beyond this machine all the same: only in a network that is yours alone."""
    open: bool = False
    """Serve whoever asks, without a key and without limits; on loopback only."""
    origins: str = ""
    """Pages in a browser that may call, with commas between: https://app.example.com; * for all."""
    drain: float = Field(20.0, ge=0.0, le=3600.0)
    """Seconds that running requests have to end when the gateway stops."""
    notice: float = Field(0.0, ge=0.0, le=3600.0)
    """Seconds for which /healthz says that the gateway is stopping, before it accepts nothing more."""
    access_log: bool = False
    """Log a line for each request: its id, key, route, status, tokens and seconds; never what was said."""


class VerifierGatewayOptions(FrontOptions):
    """The gateway within the verifier, and the socket for one that is a process of its own."""

    off: bool = False
    """Serve no users here."""
    socket: Path | None = None
    """Unix socket at which a 'targon gateway' may hand orders to this verifier; without it, none can."""


class SplitGatewayOptions(FrontOptions):
    """The gateway as a process of its own."""

    socket: Path = Path("~/.targon/verifier/gateway.sock")
    """Unix socket of the verifier: its --gateway.socket."""


class GatewayDataOptions(Options):
    """Where the gateway keeps its users' keys."""

    path: Path = Path("~/.targon/gateway")
    """Folder for the keys: 'targon key create --data.path' makes one."""


class GatewayOptions(ProcessOptions):
    """Serve users, beside a verifier that fulfils their orders. It holds no hotkey and no log."""

    gateway: SplitGatewayOptions = SplitGatewayOptions()
    data: GatewayDataOptions = GatewayDataOptions()
    metrics: MetricsOptions = MetricsOptions()
    logging: LoggingOptions = LoggingOptions()
