"""``targon prover`` with the limits lifted that hold one verifier to what one machine with a GPU can do.

Nothing else differs: the same command, the same loop, the same engine over HTTP. Here one prover answers for the many
that a gateway would have behind it, and its engine answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from targon.cli import main
from targon.cli.commands import prover
from targon.cli.options import EngineOptions
from targon.cli.prover_options import ProverOptions
from targon.engines import Engine
from targon.engines.remote import open_remote_engine
from targon.prover import ProverSettings
from targon.transport import Allowance, Limits

STREAMS = 20_000
PLENTY = Allowance(per_second=1e6, burst=1_000_000, concurrent=STREAMS)
LIFTED = Limits(
    per_hotkey=PLENTY,
    per_address=PLENTY,
    max_concurrent=STREAMS,
    max_connections=STREAMS,
    max_connections_per_address=STREAMS,
    max_nonces=2_000_000,
)
STEP_S = 600.0
"""A stream that is left alone waits for its engine's next token."""

_settings_of = prover.settings_of


def lifted(options: ProverOptions) -> ProverSettings:
    """What the operator said, with the limits lifted."""
    return replace(
        _settings_of(options), limits=LIFTED, max_running=STREAMS, max_queue=STREAMS, step_timeout_s=STEP_S
    )


@asynccontextmanager
async def opened(options: EngineOptions, tgi_endpoint: str = "") -> AsyncGenerator[Engine, None]:
    """The engine over HTTP, with the limits lifted."""
    assert not tgi_endpoint
    async with open_remote_engine(
        options.url, model=options.model, max_requests=STREAMS, max_queue=STREAMS, timeout_s=STEP_S
    ) as engine:
        yield engine


if __name__ == "__main__":
    prover.settings_of = lifted
    vars(prover)["opened_engine"] = opened
    sys.exit(main(["prover", *sys.argv[1:]]))
