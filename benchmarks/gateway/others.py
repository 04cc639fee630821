"""The gateways beside which ours is measured: LiteLLM's proxy with one worker, and SGLang's router.

They run in an environment of their own, ``.venv-gateways`` (``make bench-gateway`` sets it up), in front of the same
engine, and with a key where they want one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.answer import NAME
from benchmarks.gateway.processes import free_port, running, wait_for_http

BIN = Path(__file__).resolve().parent.parent.parent / ".venv-gateways" / "bin"


@dataclass(frozen=True)
class Place:
    """Something that serves the OpenAI API on loopback."""

    name: str
    port: int
    key: str = "none"


class NotInstalled(Exception):
    """Something that is measured beside ours isn't here."""


def check_installed() -> None:
    """Raises ``NotInstalled`` if the environment isn't there."""
    if not (BIN / "litellm").exists():
        raise NotInstalled(
            f"{BIN.parent} has no LiteLLM and no sglang-router: run `make bench-gateway`, which sets it up, once"
        )


@contextmanager
def litellm(engine_port: int, folder: Path) -> Iterator[Place]:
    """LiteLLM's proxy, one worker, with its own master key and no database."""
    place = Place("LiteLLM", free_port(), f"sk-{secrets.token_hex(24)}")
    settings = folder / "litellm.yaml"
    settings.write_text(
        f"model_list:\n  - model_name: {NAME}\n    litellm_params:\n      model: openai/{NAME}\n"
        f"      api_base: http://127.0.0.1:{engine_port}/v1\n      api_key: none\n",
        "utf-8",
    )
    command = [
        *(str(BIN / "litellm"), "--config", str(settings), "--host", "127.0.0.1"),
        *("--port", str(place.port), "--num_workers", "1"),
    ]
    environment = {
        "LITELLM_MASTER_KEY": place.key,
        "LITELLM_LOG": "ERROR",
        # its list of prices is in the package, too
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with running("litellm", command, folder, environment) as process:
        wait_for_http(place.port, "/health/liveliness", process, folder / "litellm.out")
        yield place


@contextmanager
def sglang_router(engine_port: int, folder: Path) -> Iterator[Place]:
    """SGLang's router, which is written in Rust."""
    place = Place("sglang-router", free_port())
    command = [
        *(str(BIN / "python"), "-m", "sglang_router.launch_router", "--host", "127.0.0.1"),
        *("--port", str(place.port), "--worker-urls", f"http://127.0.0.1:{engine_port}"),
        *("--policy", "round_robin", "--log-level", "warn", "--prometheus-port", str(free_port())),
    ]
    with running("sglang-router", command, folder) as process:
        wait_for_http(place.port, "/readiness", process, folder / "sglang-router.out")
        yield place
