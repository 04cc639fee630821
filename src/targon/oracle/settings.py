"""What an operator may say of an oracle. Flags, files and environment are parsed elsewhere."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from targon.oracle.errors import BadSettings
from targon.protocol.private_inputs import MAX_PLACES
from targon.protocol.schedule import INTERVAL_BLOCKS
from targon.transport import Allowance, Limits, Tls, speaks_tls

PERIOD_BLOCKS: Final = 36
"""Of a period: a tenth of an interval."""
PLACES: Final = 16
"""Of each verifier in each block, unless the operator says otherwise: a verifier challenges 10 provers in a block."""
KEPT_BLOCKS: Final = 7_200 * 7
"""How long a period can be revealed: a week."""


def _limits() -> Limits:
    """A verifier asks for all its places at once, when a block comes; many do it in the same moment."""
    return Limits(
        max_body_bytes=0,
        per_hotkey=Allowance(per_second=50.0, burst=2 * MAX_PLACES, concurrent=MAX_PLACES),
        per_address=Allowance(per_second=500.0, burst=4_000, concurrent=512),
        max_concurrent=4_096,
        max_connections=4_096,
        max_connections_per_address=512,
        max_nonces=200_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleSettings:
    """An oracle's settings."""

    folder: Path
    """Where commitments and periods are kept: the oracle's memory."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8093
    """Port to listen at; 0: any free one."""
    tls: Tls = "auto"
    """Whether to serve over TLS; ``auto``: unless it listens at loopback."""
    metrics_port: int | None = None
    """Port on 127.0.0.1 for ``/metrics`` and ``/healthz``; None: not served."""
    period_blocks: int = PERIOD_BLOCKS
    """Blocks of a period, at most."""
    interval_blocks: int = INTERVAL_BLOCKS
    """A period lies within one interval."""
    places: int = PLACES
    """Private inputs of each verifier in each block."""
    kept_blocks: int = KEPT_BLOCKS
    """For how many blocks a period can be revealed after its last; 0: for ever."""
    limits: Limits = field(default_factory=_limits)

    def serves_tls(self) -> bool:
        """Whether it serves over TLS.

        Raises:
            BadSettings: if ``host`` is no IP address.
        """
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise BadSettings(f"--axon.ip: got {self.host[:80]!r}, expected an IP address") from error
        return speaks_tls(self.tls, self.host)
