"""A real PM2 with a home of its own, as an operator drives it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from operations import tools

MODULES = tools.TOOLS / "node_modules"
PM2 = MODULES / "pm2" / "bin" / "pm2"
WAIT_S = 300.0


class ProcessManager:
    """PM2's command line, and what it says of its processes.

    Args:
        home: PM2's folder. Keep its path short: sockets lie in it.
        settings: variables of the shell that it is called from.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._environment = tools.environment(PM2_HOME=str(home), **settings)
        # a shell that runs under PM2 itself would hand its own settings on
        self._environment = {k: v for k, v in self._environment.items() if not k.startswith("pm_")}

    def __call__(self, *words: str | Path, cwd: Path = tools.ROOT) -> str:
        """Run one of its commands; returns what it said."""
        result = tools.run(tools.tool("node"), PM2, *words, cwd=cwd, env=self._environment)
        assert result.returncode == 0, f"pm2 {' '.join(map(str, words))}: {tools.said(result)}"
        return result.stdout

    def processes(self) -> list[dict[str, Any]]:
        """Everything that PM2 knows of its processes."""
        (line,) = [line for line in self("jlist", "--silent").splitlines() if line.startswith("[")]
        found: list[dict[str, Any]] = json.loads(line)
        return found

    def process(self, name: str) -> dict[str, Any]:
        """What it knows of one."""
        (one,) = [process for process in self.processes() if process["name"] == name]
        return one

    def status(self, name: str) -> str:
        """Its word for the state of one: online, stopped, errored, waiting restart."""
        return str(self.process(name)["pm2_env"]["status"])

    def log(self, name: str) -> str:
        """What one wrote so far, in files that weren't turned over yet."""
        paths = {self.process(name)["pm2_env"][key] for key in ("pm_out_log_path", "pm_err_log_path")}
        return "".join(Path(path).read_text("utf-8") for path in sorted(paths) if Path(path).exists())

    def wait_for(self, what: str, true: Callable[[], bool], names: Sequence[str] = ()) -> None:
        """Wait until something holds; else fail with what the processes wrote."""
        deadline = time.monotonic() + WAIT_S
        while not true():
            if time.monotonic() > deadline:
                told = "\n".join(self.log(name)[-3000:] for name in names)
                raise AssertionError(f"not {what} within {WAIT_S:g} s:\n{told}")
            time.sleep(0.2)


def healthy(port: int) -> bool:
    """Whether a neuron answers on its axon's health route."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2.0) as answer:
            return bool(answer.status == 200 and json.load(answer) == {"status": "ok"})
    except (urllib.error.URLError, OSError):
        return False


def running(pid: int) -> bool:
    """Whether a process is there, and no mere zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children(pid: int) -> list[int]:
    """The processes that a process started and that are still there."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]
