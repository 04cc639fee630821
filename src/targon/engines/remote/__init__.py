"""Engines that somebody else runs, over HTTP: vLLM, SGLang, llama.cpp, TGI, and plain OpenAI endpoints.

:func:`open_remote_engine` finds out what answers at an address, tries what it can do, and gives the engine port.
One adapter serves all of them (:class:`RemoteEngine`); a :class:`~targon.engines.remote.backend.Backend` for each
speaks its API. Nothing here runs a model, or imports torch.
"""

from __future__ import annotations

from targon.engines.remote.backend import Served
from targon.engines.remote.capabilities import Capabilities, Finding
from targon.engines.remote.engine import LIST_LENGTH, RemoteEngine
from targon.engines.remote.opening import Kind, open_remote_engine

__all__ = [
    "LIST_LENGTH",
    "Capabilities",
    "Finding",
    "Kind",
    "RemoteEngine",
    "Served",
    "open_remote_engine",
]
