"""Real engines as processes on loopback, started from .venv-engines and stopped with the tests."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from targon.engines.default_model import DEFAULT_MODEL_NAME, ensure_default_model
from tests.neuron_processes import free_port

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-engines" / "bin" / "python"
START_S = 300.0
"""Two engines that load at once on two cores take a minute and a half."""

VLLM_FLAGS = (
    *("--max-model-len", "8192", "--max-num-seqs", "16", "--enforce-eager", "--no-enable-chunked-prefill"),
)
"""What a machine of two cores needs besides what the documentation says."""
VLLM_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCHDYNAMO_DISABLE": "1",  # a few kernels would be compiled, for which a machine needs a compiler
}


def documented(beginning: str) -> list[str]:
    """The words of a command in the documentation that begins so."""
    page = (ROOT / "docs" / "engines.md").read_text("utf-8").replace("\\\n", " ")
    (line,) = [line for line in page.splitlines() if line.startswith(beginning)]
    return shlex.split(line)


@contextmanager
def vllm(folder: Path, dtype: str, core: int, *flags: str) -> Iterator[str]:
    """The address of a vLLM with the protocol sampler, on one core."""
    port = free_port()
    # the build for processors brings no `vllm` command: its server is started as a module
    names = {"serve": "--model", "MODEL_FOLDER": str(ensure_default_model()), "8000": str(port)}
    _, *words = (names.get(word, word) for word in documented("vllm serve"))
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"),
        *words,
        *("--dtype", dtype),
        *VLLM_FLAGS,
        *flags,
    ]
    environment = VLLM_ENVIRONMENT | {"VLLM_CPU_OMP_THREADS_BIND": str(core)}
    url = f"http://127.0.0.1:{port}"
    with _process(command, folder / f"vllm-{dtype}.out", environment, f"{url}/health"):
        yield url


@contextmanager
def llama_cpp(folder: Path, gguf: Path) -> Iterator[str]:
    """The address of llama.cpp's server."""
    port = free_port()
    command = [str(PYTHON), str(ROOT / "live" / "llama_server.py"), str(gguf), str(port), DEFAULT_MODEL_NAME]
    url = f"http://127.0.0.1:{port}"
    with _process(command, folder / "llama.out", {}, f"{url}/health"):
        yield url


@contextmanager
def replaying_tgi(folder: Path) -> Iterator[str]:
    """The address of a server that gives TGI's recorded answers."""
    port = free_port()
    command = [sys.executable, "-m", "tests.engines.remote.replaying_tgi", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with _process(command, folder / "tgi.out", {}, f"{url}/health"):
        yield url


@contextmanager
def transformers(folder: Path, name: str, *flags: str) -> Iterator[Path]:
    """The socket of an engine of ours, in a process of its own, on one core."""
    socket = folder / name / "engine.sock"
    command = [
        sys.executable,
        "-m",
        "targon.engines.process",
        "--socket",
        str(socket),
        "--threads",
        "1",
        *flags,
    ]
    with _process(command, folder / f"{name}.out", {}, socket):
        yield socket


@contextmanager
def _process(
    command: Sequence[str], log: Path, environment: Mapping[str, str], ready: str | Path
) -> Iterator[None]:
    """A process and its children, from when it answers until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                told = log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"{command[:3]} doesn't serve (exit code {process.poll()}):\n{told}")
            time.sleep(0.2)
        yield
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, wait_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM:
            time.sleep(0.5)  # its children follow


def _answers(ready: str | Path) -> bool:
    if isinstance(ready, Path):
        return ready.exists()
    try:
        with urllib.request.urlopen(ready, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
