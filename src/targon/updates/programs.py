"""Programs that an update runs: from argument lists, in sessions of their own, each with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, Process

MOST_OUTPUT_BYTES = 4_000_000
"""Of a program whose output is read; one that says more is ended."""

LINGER_S = 2.0
"""For the end of what a program said, once it has ended."""


@dataclass(frozen=True)
class Ended:
    """A program that came to its end."""

    status: int
    output: bytes
    errors: str


class TooMuchOutput(Exception):
    """A program said more than it is read for."""


async def run_program(
    command: Sequence[str],
    *,
    folder: Path,
    lock: Path,
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
    input_: Path | None = None,
) -> Ended:
    """Run a program to its end. At the deadline, or when cancelled, it is killed with all that it started.

    Args:
        lock: file that the program holds open, by which the launcher finds it if this process is killed.
        output: file that gets all it says; without it, what it says is returned.
        input_: file that it reads from its standard input; without it, there is nothing to read.

    Raises:
        TimeoutError: at the deadline.
        OSError: if it can't be started.
        TooMuchOutput: if it says too much to be returned.
    """
    descriptors = [os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)]
    sink, source = subprocess.PIPE, subprocess.DEVNULL
    try:
        if input_ is not None:
            source = os.open(input_, os.O_RDONLY)
            descriptors.append(source)
        if output is not None:
            sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            descriptors.append(sink)
        process = await anyio.open_process(
            command,
            cwd=folder,
            env=environment,
            stdin=source,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            pass_fds=descriptors[:1],
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    said: list[bytes] = [b"", b""]
    too_much = False

    async def read(stream: ByteReceiveStream, number: int) -> None:
        nonlocal too_much
        async for chunk in stream:
            said[number] += chunk
            if len(said[number]) > MOST_OUTPUT_BYTES:
                too_much = True
                tasks.cancel_scope.cancel()

    try:
        with anyio.fail_after(deadline_s):
            async with anyio.create_task_group() as tasks:
                for number, stream in enumerate((process.stdout, process.stderr)):
                    if stream is not None:
                        tasks.start_soon(read, stream, number)
                await process.wait()
                # what it leaves behind (a shared ssh connection) may hold its pipes open
                tasks.cancel_scope.deadline = anyio.current_time() + LINGER_S
    finally:
        await _end(process)
    if too_much:
        raise TooMuchOutput
    assert process.returncode is not None
    return Ended(process.returncode, said[0], said[1].decode(errors="replace").strip())


async def _end(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.aclose()
