"""What must hold on uvloop, too: processes without an engine of their own run on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from starlette.types import Receive, Send

from targon.protocol.messages import TokenEvent
from targon.protocol.primitives import Hotkey, TokenId
from targon.transport import (
    Deadlines,
    EventStream,
    Limits,
    NotTheProver,
    Refused,
    SignedRequest,
    Unreachable,
    send_json,
    while_connected,
)
from tests.transport.world import (
    ALICE,
    CHARLIE,
    Place,
    a_client,
    a_gate,
    a_request,
    a_response,
    connect,
    head,
    send_raw,
    signed_headers,
)

STREAMED = a_request(stream=True)
WHOLE = a_request()


@pytest.fixture(autouse=True)
def _wires(wire: str) -> None:
    """Each over plain HTTP, and over TLS."""


def on_uvloop(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        with anyio.fail_after(60):
            await test()

    anyio.run(within, backend_options={"use_uvloop": True})


async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
    if b'"stream":true' not in signed.body:
        await send_json(send, 200, a_response(WHOLE).to_bytes())
        return
    stream = EventStream(send)
    for token in (5, 6, 7):
        await stream.token(TokenEvent(token_ids=(TokenId(token),), text="x"))
        await anyio.sleep(0.01)
    await stream.done(a_response(STREAMED))


def test_whole_and_streamed_answers_come_over_kept_connections() -> None:
    async def test() -> None:
        async with a_gate(handler=handler) as gate, a_client() as client:
            for _ in range(3):
                whole = await client.generate(gate.place, WHOLE, ALICE)
                streamed = await client.generate(gate.place, STREAMED, ALICE)
                assert whole.response == a_response(WHOLE)
                assert streamed.response == a_response(STREAMED)
                assert streamed.timing.first_tokens == 1

    on_uvloop(test)


def test_refusals_and_absence_are_told_apart() -> None:
    async def test() -> None:
        async with a_gate(limits=Limits(max_body_bytes=10)) as gate, a_client() as client:
            with pytest.raises(Refused, match="body_too_large"):
                await client.generate(gate.place, WHOLE, ALICE)
            with pytest.raises(Unreachable):
                await client.generate(Place(1), WHOLE, ALICE)

    on_uvloop(test)


def test_a_peer_that_cannot_show_the_hotkey_is_sent_nothing(wire: str) -> None:
    async def test() -> None:
        other = WHOLE.model_copy(update={"prover": Hotkey(CHARLIE.ss58_address)})
        async with a_gate(handler=handler) as gate, a_client(deadlines=Deadlines(connect_s=30)) as client:
            with pytest.raises(NotTheProver if wire == "TLS" else Refused):
                await client.generate(gate.place, other, ALICE)
            assert gate.handled == []

    on_uvloop(test)


def test_a_client_that_leaves_ends_the_work_for_it() -> None:
    ended = anyio.Event()

    async def works(signed: SignedRequest, receive: Receive, send: Send) -> None:
        async def work() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()

        await while_connected(receive, work)

    async def test() -> None:
        async with a_gate(handler=works) as gate:
            async with await connect(gate.port) as stream:
                await stream.send(head(signed_headers(b"{}")) + b"{}")
                while not gate.handled:
                    await anyio.sleep(0.01)
            await ended.wait()

    on_uvloop(test)


def test_silence_garbage_and_crowds_are_cut_off() -> None:
    async def test() -> None:
        async with a_gate(limits=Limits(header_timeout_s=0.2)) as gate:
            async with await anyio.connect_tcp("127.0.0.1", gate.port) as silent:
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await silent.receive()
            assert (await send_raw(gate.port, b"\x00\x01\r\n\r\n")).status == 400
        async with a_gate(limits=Limits(max_connections=2)) as gate:
            streams = [await anyio.connect_tcp("127.0.0.1", gate.port) for _ in range(3)]
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await streams[2].receive()
            for stream in streams:
                await stream.aclose()

    on_uvloop(test)
