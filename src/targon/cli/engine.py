"""The engine of a role: one that is running already, or one started for it in a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from targon.cli.errors import CommandError
from targon.cli.options import EngineOptions
from targon.engines import Engine, start_engine_process, wait_for_engine
from targon.engines.remote import LIST_LENGTH, Kind, RemoteEngine, open_remote_engine

API_KEY = "TARGON_ENGINE_API_KEY"
"""The variable of the environment that holds the key of an engine which wants one. No flag does: those are seen by
everybody on the machine."""


@asynccontextmanager
async def opened_engine(options: EngineOptions, tgi_endpoint: str = "") -> AsyncGenerator[Engine, None]:
    """An engine that answers, for as long as the block lasts.

    Args:
        tgi_endpoint: address of a TGI, used where no other engine is named.

    Raises:
        CommandError: if two engines are named.
        EngineUnavailable: if it doesn't answer, runs another model, or its process ends.
    """
    url = options.url or tgi_endpoint
    if url and options.socket is not None:
        raise CommandError(f"got two engines, {url} and --engine.socket {options.socket}, expected one")
    if url:
        kind: Kind | None = "tgi" if not options.url else None if options.kind == "auto" else options.kind
        async with open_remote_engine(
            url,
            model=options.model or None,
            name=options.name or None,
            dtype=options.dtype or None,
            kind=kind,
            api_key=os.environ.get(API_KEY),
            max_requests=options.max_batch,
        ) as engine:
            yield engine
        return
    if options.socket is not None:
        async with wait_for_engine(options.socket) as engine:
            yield engine
        return
    with tempfile.TemporaryDirectory(prefix="targon-engine-") as folder:
        async with start_engine_process(
            Path(folder) / "engine.sock",
            model=options.model or "default",
            dtype=options.dtype or "float32",
            threads=options.threads or None,
            max_batch=options.max_batch,
        ) as engine:
            yield engine


def check_reference(engine: Engine) -> None:
    """Make sure that an engine can be a reference.

    Raises:
        CommandError: if it can't score given tokens.
    """
    if isinstance(engine, RemoteEngine) and engine.capabilities.prompt_logprobs < LIST_LENGTH:
        raise CommandError(
            f"the engine {engine.identity.engine} can be no reference: it reports "
            f"{engine.capabilities.prompt_logprobs} log-probabilities of given tokens at each position, expected "
            f"{LIST_LENGTH}; use vLLM or SGLang, or leave --engine.url and --neuron.tgi_endpoint away and have one "
            "started"
        )
