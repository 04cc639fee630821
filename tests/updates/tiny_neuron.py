"""A neuron that does nothing but say its version, from a checkout of its own: what the tests of updates update.

A test copies it into a repository as ``neuron.py``, beside ``VERSION``, ``BEHAVIOUR`` and ``setup.py``. Its options
are environment variables, as a process keeps them over its restarts.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import SocketStream

from targon.updates import Plan, UpdateDeadlines, Updater, UpdateSettings, restart

ROOT = Path(__file__).resolve().parent
VERSION = (ROOT / "VERSION").read_text("utf-8").strip()
BEHAVIOUR = (ROOT / "BEHAVIOUR").read_text("utf-8").strip()


class Neuron:
    """Tells its version to whoever connects; to ``slow`` only after a while."""

    def __init__(self) -> None:
        self.draining = anyio.Event()
        self.idle = anyio.Event()

    async def run(self) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=int(os.environ["PORT"]))
        async with anyio.create_task_group() as answering, listener, anyio.create_task_group() as accepting:
            accepting.start_soon(listener.serve, self.answer, answering)
            await self.draining.wait()
            accepting.cancel_scope.cancel()
        self.idle.set()

    async def answer(self, stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            async with stream:
                if await stream.receive() == b"slow":
                    await anyio.sleep(1.0)
                await stream.send(VERSION.encode())

    async def drain(self) -> None:
        self.draining.set()
        if BEHAVIOUR == "never drains":
            await anyio.sleep_forever()
        await self.idle.wait()

    async def healthy(self) -> bool:
        try:
            async with await anyio.connect_tcp("127.0.0.1", int(os.environ["PORT"])) as stream:
                await stream.send(b"quick")
                return await stream.receive() == VERSION.encode() and BEHAVIOUR != "is never healthy"
        except OSError:
            return False


def die_if_asked(step: str) -> None:
    """As by a power cut, once, before the step that the test named."""
    wish = Path(os.environ["FOLDER"]) / "die at"
    if wish.exists() and wish.read_text("utf-8") == step:
        wish.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


async def serve() -> bool:
    neuron = Neuron()
    python = os.environ["CHECK_PYTHON"]
    updater = Updater(
        settings=UpdateSettings(
            enabled=os.environ.get("UPDATES", "on") == "on",
            channel=os.environ.get("CHANNEL", "stable"),
            allowed_signers=Path(os.environ["FOLDER"]) / "allowed_signers",
            pin=os.environ.get("PIN", ""),
            restart=os.environ.get("RESTART", "exec"),
            interval_s=0.2,
            deadlines=UpdateDeadlines(
                drain_s=float(os.environ["DRAIN_S"]),
                set_up_s=float(os.environ["SET_UP_S"]),
                healthy_s=float(os.environ["HEALTHY_S"]),
            ),
        ),
        plan=Plan(
            program=ROOT / "neuron.py",
            set_up=(python, "setup.py"),
            checks=((python, "neuron.py", "--version"),),
        ),
        drain=neuron.drain,
        healthy=neuron.healthy,
        jitter=lambda: 0.5,
        on_step=die_if_asked,
    )
    return await updater.run_beside(neuron.run)


def main() -> int:
    if "--version" in sys.argv:
        sys.stdout.write(VERSION)
        return 1 if BEHAVIOUR == "fails its check" else 0
    made_for = (ROOT / "environment" / "version").read_text("utf-8")
    if made_for != VERSION:
        sys.stderr.write(f"the environment is of {made_for}, and this is {VERSION}\n")
        return 1
    if BEHAVIOUR == "crashes at once":
        return 3
    if BEHAVIOUR == "hangs":
        time.sleep(3600)
    return restart(os.environ.get("RESTART", "exec")) if anyio.run(serve) else 0


if __name__ == "__main__":
    sys.exit(main())
