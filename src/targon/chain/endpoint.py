"""From an endpoint, as operators write it, to the adapter that serves it."""

from __future__ import annotations

import importlib
from pathlib import Path
from urllib.parse import unquote

import anyio.to_thread

from targon.chain.embedded import EmbeddedChain
from targon.chain.errors import UnsupportedEndpoint, WrongNetwork
from targon.chain.port import Chain
from targon.protocol.primitives import Block

_SQLITE = "sqlite:"


async def open_chain(
    endpoint: str, netuid: int, network: str = "", *, seen: tuple[Block, float] | None = None
) -> Chain:
    """Open the chain that an endpoint names, or, without one, the network.

    Args:
        endpoint: ``sqlite:///absolute/path`` or ``sqlite:relative/path`` for the embedded chain; anything else is
            a Subtensor node's address: ``wss://HOST``, ``ws://HOST:PORT``, ``HOST:PORT``, several with commas.
        network: finney, test or local.
        seen: a block that was seen on it before, and how many seconds ago: a node that is much further isn't
            believed. (The embedded chain needs none: its blocks are the clock's.)

    Raises:
        UnsupportedEndpoint: if no adapter of this version serves it.
        ChainUnavailable: if there is no whole chain, or nobody answers.
        WrongNetwork: if the chain has no such subnet.
    """
    if endpoint.startswith(_SQLITE):
        return await anyio.to_thread.run_sync(_open_embedded, endpoint, netuid)
    if not endpoint.strip() and not network.strip():
        raise UnsupportedEndpoint(
            "chain endpoint: got none, and no network; expected --subtensor.network finney, test or local, or "
            "--subtensor.chain_endpoint wss://HOST, ws://HOST:PORT or sqlite:///absolute/path"
        )
    await anyio.to_thread.run_sync(importlib.import_module, "targon.chain.bittensor")  # half a second
    from targon.chain.bittensor import open_bittensor

    return await open_bittensor(network, endpoint, netuid, seen=seen)


def _open_embedded(endpoint: str, netuid: int) -> EmbeddedChain:
    chain = EmbeddedChain.open(_path(endpoint))
    if chain.settings.netuid != netuid:
        chain.close()
        raise WrongNetwork(
            f"chain {chain.path}: got netuid {netuid}, expected {chain.settings.netuid}, the subnet that "
            f"this chain was created for; use --netuid {chain.settings.netuid}"
        )
    return chain


def _path(endpoint: str) -> Path:
    rest = endpoint.removeprefix(_SQLITE)
    if rest.startswith("//"):
        rest = rest.removeprefix("//")
        if not rest.startswith("/"):
            host = rest.partition("/")[0]
            raise UnsupportedEndpoint(
                f"chain endpoint: got the host {host[:80]!r} in {endpoint[:200]!r}, expected none: "
                "a chain file lies on this machine; write sqlite:///absolute/path (three slashes)"
            )
    if not rest:
        raise UnsupportedEndpoint(
            "chain endpoint: got no path, expected sqlite:///absolute/path or sqlite:relative/path"
        )
    slashes = len(rest) - len(rest.lstrip("/"))
    return Path(unquote(rest[max(0, slashes - 1) :]))
