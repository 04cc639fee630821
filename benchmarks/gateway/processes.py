"""Processes that are measured: started, waited for, looked at and stopped together."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_S = 180.0
STOP_S = 10.0
OPEN_FILES = 100_000
"""What 10,000 streams take at both ends of each process, and room."""


def allow_open_files() -> int:
    """Raise the limit of open files for this process and those that it starts; returns what it is then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, OPEN_FILES), max(most, OPEN_FILES)))
    except (PermissionError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@contextmanager
def running(
    name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; what it says goes to ``NAME.out`` in the folder."""
    with (folder / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this environment."""
    return [sys.executable, "-m", name, *arguments]


def wait_for_http(port: int, path: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until a server answers a GET with 200.

    Raises:
        RuntimeError: if it ends before, or doesn't within ``READY_S``; with the end of its output.
    """
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if get(port, path, timeout_s=5.0) == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"nothing answers at port {port}; the end of {output}:\n{output.read_text()[-3000:]}")


def get(port: int, path: str, timeout_s: float = 10.0) -> int:
    """The status of a GET on loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def memory_mb(process: subprocess.Popen[bytes], what: str = "VmRSS") -> float:
    """Resident memory of a process, in MB (10⁶ bytes); ``VmHWM``: its peak."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
