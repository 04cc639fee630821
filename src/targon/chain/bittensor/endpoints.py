"""From network and endpoint, as operators write them, to the websocket addresses to call, in order."""

from __future__ import annotations

from urllib.parse import urlsplit

from targon.chain.errors import UnsupportedEndpoint

NETWORKS = ("finney", "test", "local")
"""The networks that have a name."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Addresses that one listens at; who calls them means this machine."""

_EXPECTED = "expected ws://HOST:PORT, wss://HOST, HOST:PORT (several with commas between them), or sqlite:///absolute/path"


def endpoints_of(network: str, chain_endpoint: str) -> tuple[str, ...]:
    """The addresses to call, the first one first. An endpoint wins over a network.

    Raises:
        UnsupportedEndpoint: if one of them is no address, or the network has no known one.
    """
    if not chain_endpoint.strip():
        return _endpoints_of_network(network.strip())
    found: list[str] = []
    for part in chain_endpoint.split(","):
        found += (
            _endpoints_of_network(part.strip()) if part.strip() in NETWORKS else (_address(part.strip()),)
        )
    return tuple(dict.fromkeys(found))


def shown(endpoint: str) -> str:
    """An address as it may be logged: without path and user, which may be somebody's access key."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _endpoints_of_network(network: str) -> tuple[str, ...]:
    from bittensor.settings import default_fallback_endpoints, resolve_endpoint

    if network not in NETWORKS:
        raise UnsupportedEndpoint(
            f"network: got {network[:80]!r}, expected {', '.join(NETWORKS)}; for any other one give "
            "--subtensor.chain_endpoint ws://HOST:PORT"
        )
    _, first = resolve_endpoint(network)
    return (first, *default_fallback_endpoints(network))


def _address(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "ws", text
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UnsupportedEndpoint(f"chain endpoint: got {text[:200]!r}, {_EXPECTED} ({error})") from error
    if scheme not in ("ws", "wss") or not host or host != "".join(host.split()) or port == 0:
        raise UnsupportedEndpoint(f"chain endpoint: got {text[:200]!r}, {_EXPECTED}")
    if not separator and port is None:
        raise UnsupportedEndpoint(f"chain endpoint: got {text[:200]!r} without a port, {_EXPECTED}")
    host = _EVERYWHERE.get(host, host)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    place = f"[{host}]" if ":" in host else host
    place += f":{port}" if port is not None else ""
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{user}{place}{parts.path}{query}"
