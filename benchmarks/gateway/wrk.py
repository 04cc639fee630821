"""Throughput in a closed loop: ``wrk`` with 64 connections, each of which asks again once it is answered."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.answer import NAME, TOKENS
from benchmarks.gateway.others import NotInstalled, Place

CONNECTIONS = 64
SCRIPT = f"""
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
wrk.body = '{{"model":"{NAME}","messages":[{{"role":"user","content":"Why is the sky blue?"}}],' ..
  '"max_tokens":{TOKENS},"temperature":0,"stream":' .. os.getenv("BENCH_STREAM") .. '}}'
"""


@dataclass(frozen=True)
class Load:
    """What came of it."""

    per_second: float
    refused: int
    """Answers that were not 200."""
    broken: int
    """Connections that failed."""


def check_installed() -> None:
    """Raises ``NotInstalled`` if there is no wrk."""
    if shutil.which("wrk") is None:
        raise NotInstalled("there is no wrk: on Debian and Ubuntu `apt-get install wrk`")


def load(place: Place, *, stream: bool, seconds: int, folder: Path) -> Load:
    """Ask for sixteen tokens, over and over."""
    script = folder / "ask.lua"
    script.write_text(SCRIPT, "utf-8")
    command = [
        *("wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"),
        *("--timeout", "20s", "--script", str(script)),
        f"http://127.0.0.1:{place.port}/v1/chat/completions",
    ]
    # the key stays off the command line, which everybody on the machine can read
    environment = {**os.environ, "BENCH_KEY": place.key, "BENCH_STREAM": "true" if stream else "false"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    assert rate is not None, done.stdout
    return Load(
        per_second=float(rate[1]),
        refused=int(refused[1]) if refused else 0,
        broken=sum(map(int, errors.groups())) if errors else 0,
    )
