"""A small world of releases: a remote, a maintainer who signs, an operator's checkout, and what keeps it running."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import targon
from targon.updates import launcher
from tests.neuron_processes import free_port

HERE = Path(__file__).parent
SOURCE = Path(targon.__file__).parents[1]
WAIT_S = 160.0
IDENTITY = ("-c", "user.name=Maintainer", "-c", "user.email=maintainer@example.org")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class World:
    """Version 1.0.0 is released, and checked out by the operator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = folder / "remote.git"
        self.maintainer = folder / "maintainer"
        self.checkout = folder / "neuron"
        self.allowed_signers = folder / "allowed_signers"
        self.state_file = folder / "state" / "update.json"
        for name in ("key", "stranger"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name, folder=folder)
        public = (folder / "key.pub").read_text("utf-8")
        self.allowed_signers.write_text(f'maintainer namespaces="git" {public}', "utf-8")
        run("git", "init", "-q", "--bare", "-b", "main", self.remote, folder=folder)
        run("git", "init", "-q", "-b", "main", self.maintainer, folder=folder)
        run("git", "remote", "add", "origin", self.remote, folder=self.maintainer)
        (self.maintainer / ".gitignore").write_text("environment/\n__pycache__/\n", "utf-8")
        shutil.copy(HERE / "tiny_neuron.py", self.maintainer / "neuron.py")
        shutil.copy(HERE / "tiny_setup.py", self.maintainer / "setup.py")
        self.release("v1.0.0")
        run("git", "clone", "-q", self.remote, self.checkout, folder=folder)
        run(sys.executable, "setup.py", folder=self.checkout, FOLDER=str(folder))

    def commit(self, version: str, behaviour: str = "works", **files: str) -> str:
        contents = {"VERSION": version, "BEHAVIOUR": behaviour, f"only-in-{version}": version, **files}
        for old in self.maintainer.glob("only-in-*"):
            old.unlink()
        for name, content in contents.items():
            (self.maintainer / name).write_text(content, "utf-8")
        run("git", "add", "--all", folder=self.maintainer)
        run("git", *IDENTITY, "commit", "-q", "-m", version, folder=self.maintainer)
        return run("git", "rev-parse", "HEAD", folder=self.maintainer)

    def tag(self, tag: str, key: str | None = "key", commit: str = "HEAD") -> str:
        """Tag a commit, signed by a key (None: unsigned), and push it; returns the tag's object id."""
        signed = ("-s",) if key else ("-a",)
        settings = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={self.folder / (key or '')}")
        run(
            *("git", *IDENTITY, *settings, "tag", "--force", *signed, "-m", tag, tag, commit),
            folder=self.maintainer,
        )
        self.push(tag)
        return run("git", "rev-parse", tag, folder=self.maintainer)

    def push(self, *tags: str) -> None:
        run("git", "push", "-q", "--force", "origin", "main", *tags, folder=self.maintainer)

    def release(self, tag: str, behaviour: str = "works", key: str | None = "key", **files: str) -> str:
        """Make a commit, tag and push it; returns the commit."""
        commit = self.commit(tag.removeprefix("v"), behaviour, **files)
        self.tag(tag, key)
        return commit

    def head(self) -> str:
        return run("git", "rev-parse", "HEAD", folder=self.checkout)

    def changes(self) -> str:
        return run("git", "status", "--porcelain", folder=self.checkout)

    def state(self) -> launcher.State:
        return launcher.read_state(self.state_file)


class Neuron:
    """The operator's neuron, kept running as PM2 and systemd do: whenever it ends, it is started again."""

    def __init__(self, world: World, **environment: str) -> None:
        self.world = world
        self.output = world.folder / "neuron.log"
        self.port = free_port()
        self.launcher = world.folder / "launcher.py"
        shutil.copy(launcher.__file__, self.launcher)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "PYTHONWARNINGS": "default",
            "FOLDER": str(world.folder),
            "PORT": str(self.port),
            "CHECK_PYTHON": sys.executable,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "DRAIN_S": "120",
            "SET_UP_S": "120",
            "HEALTHY_S": "120",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.statuses: list[int] = []
        """Of each process that ended."""
        self._stop = threading.Event()

    @contextmanager
    def kept_running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._keep)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            while thread.is_alive():
                if self.process is not None:
                    self.process.kill()
                thread.join(0.1)

    def _keep(self) -> None:
        while not self._stop.is_set():
            with self.output.open("ab") as output:
                self.process = subprocess.Popen(
                    self.command(),
                    env=self.environment,
                    stdout=output,
                    stderr=output,
                    cwd=self.world.checkout,
                )
            self.statuses.append(self.process.wait())
            self._stop.wait(0.05)

    def command(self) -> list[str]:
        python = sys.executable
        state = ["--state", str(self.world.state_file)]
        return [python, str(self.launcher), *state, "--", python, str(self.world.checkout / "neuron.py")]

    def says(self, question: bytes = b"quick") -> str | None:
        """The version that answers; None: nobody does."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as stream:
                stream.sendall(question)
                return stream.recv(100).decode() or None
        except OSError:
            return None

    def log(self) -> str:
        return self.output.read_text("utf-8", errors="replace") if self.output.exists() else ""

    def wait_until(self, what: str, *, version: str | None = None, logged: str | None = None) -> None:
        """Wait for a version to serve with no update under way, or for a line of the log."""

        def holds() -> bool:
            if version is not None and self.says() == version and self.world.state().update is None:
                return True
            return logged is not None and logged in self.log()

        self.wait_for(what, holds)

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{what}: not within {WAIT_S:g} s. The neuron said:\n{self.log()[-4000:]}"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
