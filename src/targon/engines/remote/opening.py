"""From an address to an engine: what answers there, which model it should run, and what it can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from anyio import to_thread

from targon.engines.default_model import DEFAULT_MODEL_NAME
from targon.engines.errors import EngineUnavailable
from targon.engines.port import ModelIdentity
from targon.engines.remote.backend import Backend, Served
from targon.engines.remote.calls import Calls
from targon.engines.remote.capabilities import Capabilities
from targon.engines.remote.engine import RemoteEngine
from targon.engines.remote.folder import DEFAULT_MODEL, ModelFolder
from targon.engines.remote.llamacpp import LlamaCppBackend
from targon.engines.remote.openai import OpenAiBackend
from targon.engines.remote.probing import probe
from targon.engines.remote.sglang import SglangBackend
from targon.engines.remote.tgi import TgiBackend
from targon.engines.remote.vllm import VllmBackend
from targon.engines.remote.web import Web

Kind = Literal["vllm", "sglang", "llama.cpp", "tgi", "openai"]

_OWNERS: Final[dict[str, Kind]] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
"""What engines call themselves in ``/v1/models``."""

_BACKENDS: Final[dict[Kind, Callable[[Calls], Backend]]] = {
    "vllm": VllmBackend,
    "sglang": SglangBackend,
    "llama.cpp": LlamaCppBackend,
    "tgi": TgiBackend,
}


@asynccontextmanager
async def open_remote_engine(
    url: str,
    *,
    model: str | Path | None = None,
    name: str | None = None,
    dtype: str | None = None,
    kind: Kind | None = None,
    api_key: str | None = None,
    max_requests: int = 16,
    max_queue: int = 64,
    timeout_s: float = 120.0,
    strict: bool = True,
) -> AsyncIterator[RemoteEngine]:
    """Use an engine over HTTP until the block ends. Trying what it can do takes some seconds.

    Args:
        url: where it serves: ``http://127.0.0.1:8000``.
        model: the folder of the model that it runs, or ``"default"``; None: the folder that the engine names, if it
            is on this machine, or the default model, if the engine serves one by that name.
        name: the name that requests use; by default the model's own, as its card or its folder has it. Of several
            models that an engine serves the one by that name is taken, else the first.
        dtype: the number format that it computes in; None: what its log-probabilities look like.
        kind: which engine it is; None: as it says itself.
        api_key: sent as a bearer token.
        max_requests: how many requests are under way at once.
        max_queue: how many more may wait; beyond that, tasks raise ``EngineBusy``.
        timeout_s: the longest wait for any one thing: the next token, an answer to a call to score.
        strict: whether an engine that was found to run another model is refused; else what was found is all in
            :attr:`RemoteEngine.capabilities`.

    Raises:
        EngineUnavailable: if no engine answers there, its model isn't known here, or it runs another one.
    """
    _check_address(url)
    if api_key and not api_key.isprintable():
        raise EngineUnavailable(
            "TARGON_ENGINE_API_KEY: got a key with a line break or the like, expected printable characters only"
        )
    async with Web(url, api_key) as web:
        calls = Calls(web, timeout_s=timeout_s, max_requests=max_requests, max_queue=max_queue)
        found: Kind = kind or await _kind(calls)
        folder: ModelFolder | None = None
        if found == "openai":
            folder = await to_thread.run_sync(ModelFolder.open, model or DEFAULT_MODEL)
            backend: Backend = OpenAiBackend(calls, folder.chat.encode_text)
        else:
            backend = _BACKENDS[found](calls)
        served = await backend.served()
        if folder is None:
            folder = await to_thread.run_sync(ModelFolder.open, model or _folder(served, calls))
        own_name = folder.card.name if folder.card is not None else folder.name
        named = next((one for one in (name, own_name) if one in served.models), served.model)
        capabilities = await probe(backend, folder, replace(served, model=named))
        if strict:
            _refuse_another_model(capabilities, calls, dtype)
        identity = ModelIdentity(
            name=name or own_name,
            model_digest=folder.digest,
            dtype=dtype or capabilities.dtype,
            engine=served.engine,
            vocab_size=folder.vocab_size,
            context_length=capabilities.context_length,
            eos_ids=folder.eos_ids,
            dialects=capabilities.dialects,
            max_batch=_room(served, max_requests),
        )
        yield RemoteEngine(backend, folder, identity, capabilities)


def _check_address(url: str) -> None:
    """Raises ``EngineUnavailable`` if it isn't one, or holds a password, which would be seen in every log."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        named = parts.username is not None
    except ValueError:
        good = named = False
    if named:
        raise EngineUnavailable(
            "engine address: got one with a user name in it, expected http://host:port; put the key that the engine "
            "wants into TARGON_ENGINE_API_KEY"
        )
    if not good:
        raise EngineUnavailable(f"engine address: got {url!r}, expected http://host:port")


async def _kind(calls: Calls) -> Kind:
    """Which engine answers."""
    models = await calls.offers("/v1/models")
    data = models.get("data") if isinstance(models, dict) else None
    if isinstance(data, list) and data and isinstance(data[0], dict):
        owner = _OWNERS.get(str(data[0].get("owned_by")))
        if owner is not None:
            return owner
    info = await calls.offers("/info")
    if isinstance(info, dict) and "max_total_tokens" in info:
        return "tgi"
    if not data:
        calls.fail(
            "it has neither /v1/models nor /info: no engine that is known here; name the address without a path, as "
            "http://host:port"
        )
    return "openai"


def _room(served: Served, max_requests: int) -> int:
    """How many requests it works on at once, as far as it says so in a way that can be meant."""
    slots: object = served.slots
    return min(max_requests, slots) if isinstance(slots, int) and slots > 0 else max_requests


def _folder(served: Served, calls: Calls) -> str | Path:
    """The model that an engine says it runs, as far as it can be found on this machine."""
    if served.folder and (Path(served.folder) / "tokenizer.json").is_file():
        return Path(served.folder)
    if DEFAULT_MODEL_NAME not in (served.model, served.folder):
        calls.fail(
            f"it serves {served.model!r} from {served.folder!r}, which isn't on this machine; name the model's folder "
            "with --engine.model (tokenizer.json, config.json and targon-model.json are enough, the weights needn't "
            "be there)"
        )
    return DEFAULT_MODEL


def _refuse_another_model(capabilities: Capabilities, calls: Calls, dtype: str | None) -> None:
    wrong = [finding for finding in capabilities.findings if finding.judgement == "bad"]
    if wrong:
        what = "; ".join(f"{one.what}: {one.got} ({one.advice})" for one in wrong)
        calls.fail(f"its answers would not be the model's. {what}")
    if dtype == "float32" and capabilities.dtype not in ("float32", "unknown"):
        calls.fail(
            f"got log-probabilities {capabilities.difference:.2g} nats off on average, expected float32's; start it "
            "with --dtype float32, or say --engine.dtype bfloat16"
        )
