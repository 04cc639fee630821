"""What an operator may say of a prover. Flags, files and environment are parsed elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from targon.chain.announcing import host_to_announce
from targon.chain.errors import AxonRefused
from targon.prover.errors import BadSettings
from targon.transport import Limits, Tls, speaks_tls


@dataclass(frozen=True, slots=True, kw_only=True)
class ProverSettings:
    """A prover's settings."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8091
    """Port to listen on; 0: any free one."""
    external_host: str | None = None
    """The address that is announced on the chain; by default ``host``."""
    external_port: int | None = None
    """The port that is announced; by default the one that is listened on."""
    tls: Tls = "auto"
    """Whether to serve over TLS; ``auto``: unless the announced address is loopback."""
    metrics_port: int | None = None
    """Port on 127.0.0.1 for ``/metrics`` and ``/healthz``; None: not served; 0: any free one."""
    max_running: int | None = None
    """Requests in the engine at once; by default what it decodes at once."""
    max_queue: int = 64
    """Requests that wait for the engine, the callers with most stake first."""
    max_wait_s: float = 60.0
    """How long a request may wait for the engine before it is refused."""
    step_timeout_s: float = 60.0
    """How long the engine may take for one token before it counts as broken."""
    force_verifier_permit: bool = False
    """Serve only callers with a validator permit."""
    allow_non_registered: bool = False
    """Serve callers without a UID too, after everyone who has stake."""
    max_chain_age_s: float = 300.0
    """How old our last sight of the chain may be; older, and callers are refused rather than misjudged."""
    limits: Limits = field(default_factory=Limits)

    def capacity(self, slots: int) -> int:
        """How many requests one caller may have here at once: those that the engine decodes at once, and no more than
        the gate lets one caller have, less an eighth, which is for challenges and questions for our status."""
        limits = self.limits
        admitted = min(limits.per_hotkey.concurrent, limits.per_address.concurrent, limits.max_concurrent)
        return max(1, min(slots, admitted - math.ceil(admitted / 8)))

    def serves_tls(self) -> bool:
        """Whether we serve over TLS: callers judge by the announced address, too.

        Raises:
            BadSettings: if it is no address that others could call.
        """
        return speaks_tls(self.tls, self.announced_host())

    def announced_host(self) -> str:
        """The address that goes on the chain.

        Raises:
            BadSettings: if it is no address that others could call.
        """
        try:
            return host_to_announce(self.host, self.external_host)
        except AxonRefused as error:
            raise BadSettings(str(error)) from error
