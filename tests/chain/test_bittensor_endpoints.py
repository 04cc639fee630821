"""Whom the Bittensor adapter calls for what operators write."""

from __future__ import annotations

import socket

import pytest

from targon.chain import ChainUnavailable, UnsupportedEndpoint, open_chain
from targon.chain.bittensor.endpoints import endpoints_of, shown


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("ws://127.0.0.1:9944", ("ws://127.0.0.1:9944",)),
        ("wss://node.example", ("wss://node.example",)),
        ("wss://node.example:443/key?plan=1", ("wss://node.example:443/key?plan=1",)),
        ("node.example:9944", ("ws://node.example:9944",)),
        ("0.0.0.0:9944", ("ws://127.0.0.1:9944",)),
        ("ws://0.0.0.0:9944", ("ws://127.0.0.1:9944",)),
        ("[::]:9944", ("ws://[::1]:9944",)),
        ("[2001:db8::7]:9944", ("ws://[2001:db8::7]:9944",)),
        (" a:1 , wss://b ,a:1", ("ws://a:1", "wss://b")),
        ("wss://user:secret@node.example", ("wss://user:secret@node.example",)),
    ],
)
def test_an_endpoint_is_called_as_it_is_meant(written: str, called: tuple[str, ...]) -> None:
    assert endpoints_of("finney", written) == called


def test_a_network_is_called_at_its_own_address_first_and_at_its_others_then() -> None:
    finney, *others = endpoints_of("finney", "")
    assert finney == "wss://entrypoint-finney.opentensor.ai:443"
    assert others
    assert endpoints_of("", "finney") == (finney, *others)
    assert endpoints_of("test", " ") == ("wss://test.finney.opentensor.ai:443",)


def test_this_machine_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoints_of("local", "")[0].startswith("ws://127.0.0.1:")


@pytest.mark.parametrize(
    "written",
    [
        "chain.sqlite",
        "node.example",
        "http://a:1",
        "ws://",
        "a:port",
        "a:0",
        "a:70000",
        ":9944",
        "a b:1",
        "a:1,,b:2",
    ],
)
def test_what_is_no_address_is_refused_with_what_one_looks_like(written: str) -> None:
    with pytest.raises(UnsupportedEndpoint, match=r"expected ws://HOST:PORT, wss://HOST"):
        endpoints_of("finney", written)


def test_a_network_without_a_known_address_is_refused() -> None:
    with pytest.raises(UnsupportedEndpoint, match=r"got 'kusama', expected finney, test, local"):
        endpoints_of("kusama", "")


def test_keys_in_an_address_are_not_shown() -> None:
    assert shown("wss://user:secret@node.example:443/secret?key=secret") == "wss://node.example:443"


@pytest.mark.anyio
async def test_neither_endpoint_nor_network_is_refused_by_their_flags() -> None:
    with pytest.raises(UnsupportedEndpoint, match=r"--subtensor\.network.*--subtensor\.chain_endpoint"):
        await open_chain("", 4)


@pytest.mark.anyio
async def test_where_nobody_listens_the_address_and_the_flag_are_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ChainUnavailable, match=rf"ws://127\.0\.0\.1:{port}.*--subtensor\.chain_endpoint"):
            await open_chain(f"127.0.0.1:{port}", 4)
