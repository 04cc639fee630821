"""Processes of a local network: started together, watched, and stopped together."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process

STOP_S = 10.0
"""Seconds that a process has to stop by itself before it is killed."""


class ProcessDied(Exception):
    """A process of the network ended on its own."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process of the network, and where its output goes."""

    name: str
    process: Process
    output: Path

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            ProcessDied: with the end of its output.
        """
        code = self.process.returncode
        if code is not None:
            tail = self.output.read_text(errors="replace").strip().splitlines()[-12:]
            raise ProcessDied(
                f"{self.name} ended with exit code {code}; the end of {self.output}:\n  " + "\n  ".join(tail)
            )


@asynccontextmanager
async def running(
    name: str, module: str, arguments: Sequence[str], folder: Path
) -> AsyncGenerator[Running, None]:
    """Run ``python -m module arguments`` for as long as the block lasts; stop it gently, then firmly."""
    output = folder / f"{name}.log"
    with output.open("wb") as sink:
        process = await anyio.open_process(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            # Its own session: a Ctrl-C at the terminal reaches the network, which stops its processes in order.
            start_new_session=True,
        )
    try:
        yield Running(name, process, output)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(STOP_S):
            await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
