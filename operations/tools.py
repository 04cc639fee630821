"""The tools of .venv-operations, and what running them takes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".venv-operations"
RUN_S = 300.0


def tool(name: str) -> str:
    """The path of a tool that came from PyPI."""
    return str(TOOLS / "bin" / name)


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the tools first on the path."""
    return {**os.environ, "PATH": f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}", **more}


def run(
    *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment() if env is None else env,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def said(result: subprocess.CompletedProcess[str]) -> str:
    """What a command wrote, with its exit code, for a failing assertion."""
    return f"exit code {result.returncode}\n{result.stdout}{result.stderr}"
