"""The server: taking a port, bounding connections, leaving signals alone, and ending well."""

from __future__ import annotations

import signal
import socket

import anyio
import pytest
from starlette.types import Receive, Send

from targon.transport import (
    Limits,
    NeuronClient,
    PortInUse,
    SignedRequest,
    bind,
    bound_port,
    send_json,
)
from tests.transport.world import (
    ALICE,
    Place,
    a_client,
    a_gate,
    a_request,
    a_response,
    connect,
    head,
    post,
    signed_headers,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("wire")]


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = bound_port(taken)

        with pytest.raises(PortInUse, match=f"port {port} .*already in use.*--axon.port"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1.*address of this machine"):
        bind("192.0.2.1", 0)


def test_a_port_can_be_taken_again_right_after_it_was_let_go() -> None:
    with bind("127.0.0.1", 0) as first:
        port = bound_port(first)
    with bind("127.0.0.1", port) as second:
        assert bound_port(second) == port


def test_ipv6_loopback_can_be_bound() -> None:
    with bind("::1", 0) as sock:
        assert sock.family is socket.AF_INET6


async def test_the_role_keeps_its_own_signal_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with a_gate() as gate:
        assert (await post(gate.port)).status == 200
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_request_that_runs_is_finished_before_the_server_ends() -> None:
    request = a_request()
    entered = anyio.Event()
    answers: list[object] = []

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        entered.set()
        await anyio.sleep(0.3)
        await send_json(send, 200, a_response(request).to_bytes())

    async def ask(client: NeuronClient, place: Place) -> None:
        answers.append((await client.generate(place, request, ALICE)).response)

    async with (
        a_client() as client,
        anyio.create_task_group() as tasks,
        a_gate(handler=handler, grace_s=30) as gate,
    ):
        tasks.start_soon(ask, client, gate.place)
        await entered.wait()

    assert answers == [a_response(request)]


async def test_a_request_that_never_ends_does_not_hold_the_server_up() -> None:
    cancelled = anyio.Event()
    entered = anyio.Event()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with anyio.fail_after(30):
        async with a_gate(handler=handler, grace_s=1) as gate:
            stream = await connect(gate.port)
            await stream.send(head(signed_headers()) + b"{}")
            await entered.wait()

    assert cancelled.is_set()
    await stream.aclose()


async def _is_closed(stream: anyio.abc.ByteStream, within_s: float = 30.0) -> bool:
    with anyio.move_on_after(within_s):
        try:
            while True:
                await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
    return False


async def test_headers_that_trickle_for_ever_are_cut_off() -> None:
    async with (
        a_gate(limits=Limits(header_timeout_s=0.3)) as gate,
        await connect(gate.port) as stream,
    ):
        await stream.send(b"POST /v1/generate HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                await anyio.sleep(0.05)
                try:
                    await stream.send(b"X: y\r\n")
                except anyio.BrokenResourceError:
                    return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle)
            assert await _is_closed(stream)
            tasks.cancel_scope.cancel()


async def test_headers_that_trickle_on_a_used_connection_are_cut_off_too() -> None:
    async with (
        a_gate(limits=Limits(header_timeout_s=0.3, idle_timeout_s=600)) as gate,
        await connect(gate.port) as stream,
    ):
        await stream.send(head(signed_headers()) + b"{}")
        assert b"200" in await stream.receive()
        await stream.send(b"POST /v1")

        assert await _is_closed(stream)


async def test_a_connection_that_says_nothing_is_cut_off() -> None:
    async with (
        a_gate(limits=Limits(header_timeout_s=0.2)) as gate,
        await connect(gate.port) as stream,
    ):
        assert await _is_closed(stream)


async def test_headers_that_are_too_large_are_refused() -> None:
    async with a_gate(limits=Limits(max_header_bytes=2000)) as gate:
        reply = await post(gate.port, headers=signed_headers() | {"X-Filler": "x" * 5000})

        assert (reply.status, reply.code) == (431, "headers_too_large")


async def test_headers_that_never_end_are_refused_when_they_are_too_large() -> None:
    async with (
        a_gate(limits=Limits(max_header_bytes=2000)) as gate,
        await connect(gate.port) as stream,
    ):
        await stream.send(b"POST /v1/generate HTTP/1.1\r\nX-Filler: " + b"x" * 5000)

        assert (await stream.receive()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "limits", [Limits(max_connections=3), Limits(max_connections_per_address=3)], ids=["all", "address"]
)
async def test_connections_are_limited(limits: Limits) -> None:
    async with a_gate(limits=limits) as gate:
        # Whether they speak or not: over TLS, none of these begins its handshake.
        streams = [await anyio.connect_tcp("127.0.0.1", gate.port) for _ in range(4)]

        assert await _is_closed(streams[3], 2.0)
        assert not await _is_closed(streams[0], 0.1)
        for stream in streams:
            await stream.aclose()


async def test_garbage_instead_of_http_is_refused_and_the_server_lives_on() -> None:
    async with a_gate() as gate:
        async with await connect(gate.port) as stream:
            await stream.send(b"\x16\x03\x01garbage\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 400")

        assert (await post(gate.port)).status == 200
