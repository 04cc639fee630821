"""A network of eight honest provers on one engine: challenges per minute, and the verifier's memory."""

from __future__ import annotations

import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import anyio

from benchmarks.row import Row
from targon.ledger import SqliteLog, StepClosed, Verdict
from targon.localnet.network import Network, open_network
from targon.localnet.settings import Settings

PROVERS = 8
START_S = 300.0
LIMIT_S = 600.0


def run(quick: bool) -> list[Row]:
    """Steps after the first are counted: the first one waits for engines to warm up."""
    steps = 3 if quick else 8
    with tempfile.TemporaryDirectory() as folder:
        rate, memory = anyio.run(_measure, Path(folder) / "network", steps)
    note = f"{PROVERS} fp32 provers on one engine, the verifier's engine beside it, {steps} steps"
    return [
        Row("challenges verified", rate, "per minute", ">= 60 per minute", note),
        Row("verifier's process, peak memory", memory, "MB", "< 200 MB", "its engine has its own process"),
    ]


async def _measure(folder: Path, steps: int) -> tuple[float, float]:
    settings = Settings(path=folder, honest=PROVERS, bf16=0, cheats=(), intervals=0, block_seconds=1.0)
    async with open_network(settings) as network:
        with anyio.fail_after(START_S):
            while not network.log_path().exists():
                network.check()
                await anyio.sleep(0.2)
        async with aclosing(await SqliteLog.open(network.log_path(), read_only=True)) as log:
            return await _rate(network, log, steps), _peak_memory_mb(network)


async def _rate(network: Network, log: SqliteLog, steps: int) -> float:
    """Verdicts a minute, from the end of the first step with verdicts to the end of the last."""
    place = closed = verdicts = 0
    began = ended = 0.0
    with anyio.fail_after(LIMIT_S):
        while closed <= steps:
            network.check()
            async for record in log.read(place):
                place = record.seq + 1
                if isinstance(record.event, Verdict):
                    verdicts += 1
                elif isinstance(record.event, StepClosed) and verdicts:
                    closed += 1
                    ended = time.monotonic()
                    if closed == 1:
                        began, verdicts = ended, 0
            await anyio.sleep(0.02)
    return 60 * verdicts / (ended - began)


def _peak_memory_mb(network: Network) -> float:
    verifier = next(process for process in network.processes if process.name == "verifier-1")
    status = Path(f"/proc/{verifier.process.pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
