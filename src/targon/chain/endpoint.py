"""From an endpoint, as operators write it, to the adapter that serves it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from targon.chain.embedded import EmbeddedChain
from targon.chain.errors import ChainError, UnsupportedEndpoint
from targon.chain.port import Chain

_SQLITE = "sqlite:"


def open_chain(endpoint: str, netuid: int) -> Chain:
    """Open the chain that an endpoint names: ``sqlite:///absolute/path`` or ``sqlite:relative/path``.

    Reads a file, so call it where blocking does no harm: while a role is wired, before it runs.

    Raises:
        UnsupportedEndpoint: if no adapter of this version serves it.
        ChainUnavailable: if there is no whole chain.
        ChainError: if the chain is of another subnet.
    """
    if not endpoint.startswith(_SQLITE):
        raise UnsupportedEndpoint(
            f"chain endpoint: got {endpoint[:200]!r}, expected sqlite:///absolute/path or "
            "sqlite:relative/path; this version has the embedded chain only, no adapter for Bittensor yet"
        )
    chain = EmbeddedChain.open(_path(endpoint))
    if chain.settings.netuid != netuid:
        chain.close()
        raise ChainError(
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
