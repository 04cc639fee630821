"""TLS between neurons, over real sockets: who is believed, what is sent to whom is not, and what holds a server up."""

from __future__ import annotations

import contextlib
import logging
import ssl
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream
from bittensor.keyfiles import Keypair
from starlette.types import Receive, Send

from targon.protocol.primitives import Hotkey
from targon.transport import (
    Clock,
    Disconnected,
    Limits,
    NeuronClient,
    NotTheProver,
    Refused,
    ServerTls,
    SignedRequest,
    Tls,
    Unreachable,
    bind,
    bound_port,
    send_json,
    speaks_tls,
)
from targon.transport.tls import pinning_context
from tests.transport import world
from tests.transport.certificates import DAY, HOSTILE, NOW, Certificate, a_server_that_shows
from tests.transport.test_streams import open_sockets
from tests.transport.world import (
    ALICE,
    BOB,
    CHARLIE,
    PATIENT,
    Place,
    Served,
    TurnedClock,
    a_gate,
    a_request,
    a_response,
    a_scripted_prover,
    post,
    says,
)

pytestmark = pytest.mark.anyio

THEN = Clock(now_ns=lambda: NOW * 10**9)
REQUEST = a_request()


async def answers(signed: SignedRequest, receive: Receive, send: Send) -> None:
    await send_json(send, 200, a_response(REQUEST).to_bytes())


@pytest.mark.parametrize(
    ("tls", "host", "spoken"),
    [
        ("auto", "127.0.0.1", False),
        ("auto", "127.0.0.2", False),
        ("auto", "::1", False),
        ("auto", "::ffff:127.0.0.1", False),
        ("auto", "10.0.0.1", True),
        ("auto", "192.0.2.7", True),
        ("auto", "2001:db8::1", True),
        ("on", "127.0.0.1", True),
        ("off", "192.0.2.7", False),
    ],
)
def test_tls_is_spoken_with_everyone_beyond_loopback_unless_said_otherwise(
    tls: Tls, host: str, spoken: bool
) -> None:
    assert speaks_tls(tls, host) is spoken


@pytest.mark.parametrize("what", HOSTILE)
async def test_who_cannot_show_the_hotkey_is_sent_nothing_and_hung_up_on(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, complaint = HOSTILE[what]
    caplog.set_level(logging.CRITICAL)
    async with (
        a_server_that_shows(make()) as server,
        NeuronClient(tls="on", clock=THEN, deadlines=PATIENT) as client,
    ):
        before = open_sockets()
        with pytest.raises(NotTheProver, match=complaint) as caught:
            await client.generate(server.place, REQUEST, ALICE)
        assert str(server.place.port) in str(caught.value)

        with anyio.fail_after(30.0):
            while open_sockets() != before:
                await anyio.sleep(0.01)
        assert not any(server.heard)


async def test_the_same_server_is_sent_the_request_once_it_shows_the_hotkey() -> None:
    async with (
        a_server_that_shows(Certificate()) as server,
        NeuronClient(tls="on", clock=THEN, deadlines=replace(PATIENT, total_s=2.0)) as client,
    ):
        with pytest.raises(Exception, match="no answer in time"):
            await client.generate(server.place, REQUEST, ALICE)

        assert server.heard[0].startswith(b"POST /v1/generate")


async def test_a_connection_to_one_hotkey_is_never_used_for_another() -> None:
    async with a_gate(handler=answers, tls=ServerTls(BOB)) as gate, NeuronClient(tls="on") as client:
        before = open_sockets()
        await client.generate(gate.place, REQUEST, ALICE)
        to_charlie = a_request(prover=Hotkey(CHARLIE.ss58_address))
        with pytest.raises(NotTheProver, match=CHARLIE.ss58_address):
            await client.generate(gate.place, to_charlie, ALICE)
        await client.generate(gate.place, REQUEST, ALICE)

        # Bob's one connection, both ends of it, was kept all the while.
        assert open_sockets() - before == 2
        assert len(gate.handled) == 2


def shown_by(stream: TLSStream) -> bytes | None:
    return stream.extra(TLSAttribute.peer_certificate_binary)


async def tls_connection(port: int, context: ssl.SSLContext | None = None) -> TLSStream:
    """A connection of somebody who believes everyone."""
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
    tcp = await anyio.connect_tcp("127.0.0.1", port)
    try:
        return await TLSStream.wrap(
            tcp, server_side=False, ssl_context=context, hostname="any", standard_compatible=False
        )
    except BaseException:
        await anyio.aclose_forcefully(tcp)
        raise


async def test_a_server_speaks_tls_1_3_and_http_1_1_and_nothing_else() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with a_gate(tls=ServerTls(BOB)) as gate:
        async with await tls_connection(gate.port) as stream:
            spoken = stream.extra(TLSAttribute.tls_version), stream.extra(TLSAttribute.alpn_protocol)
            assert spoken == ("TLSv1.3", "http/1.1")
            assert stream.extra(TLSAttribute.ssl_object).compression() is None

        with pytest.raises((ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream)):
            await tls_connection(gate.port, old)


async def test_a_certificate_is_renewed_for_new_connections_while_the_server_runs() -> None:
    clock = TurnedClock()
    tls = ServerTls(BOB, clock=clock.clock())
    async with a_gate(handler=answers, tls=tls, clock=clock.clock()) as gate:
        async with await tls_connection(gate.port) as old:
            clock.turn(14 * DAY)
            async with await tls_connection(gate.port) as same:
                assert shown_by(same) == shown_by(old)
            clock.turn(2 * DAY)
            async with await tls_connection(gate.port) as new:
                assert shown_by(new) != shown_by(old)
        clock.turn(200 * DAY)
        async with NeuronClient(tls="on", clock=clock.clock()) as client:
            await client.generate(gate.place, REQUEST, ALICE)


async def test_an_open_connection_outlives_a_renewal() -> None:
    tls = ServerTls(BOB)
    async with a_gate(handler=answers, tls=tls) as gate, NeuronClient(tls="on") as client:
        before = open_sockets()
        await client.generate(gate.place, REQUEST, ALICE)
        tls.renew()
        await client.generate(gate.place, REQUEST, ALICE)

        assert open_sockets() - before == 2


async def test_a_clock_that_is_far_off_is_told_so() -> None:
    clock = TurnedClock()
    clock.turn(-301.0)
    async with a_gate(tls=ServerTls(BOB)) as gate, NeuronClient(tls="on", clock=clock.clock()) as client:
        with pytest.raises(NotTheProver, match="not_before"):
            await client.generate(gate.place, REQUEST, ALICE)


@pytest.mark.parametrize("lifetime_s", [0, 91 * DAY])
def test_a_lifetime_that_no_client_accepts_is_refused(lifetime_s: int) -> None:
    with pytest.raises(ValueError, match="lifetime_s: got"):
        ServerTls(BOB, lifetime_s=lifetime_s)


async def test_plain_http_to_a_tls_port_is_told_what_to_set() -> None:
    async with a_gate(tls=ServerTls(BOB)) as gate, NeuronClient(tls="off") as client:
        with pytest.raises(Refused, match=r"speaks TLS.*--neuron\.tls.*--axon\.tls") as caught:
            await client.generate(gate.place, REQUEST, ALICE)

        assert (caught.value.status, caught.value.code) == (400, "tls_required")
        assert (await post(gate.port)).code == "tls_required"
        assert gate.handled == []


async def test_plain_http_to_a_tls_port_of_others_has_a_hint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(world, "OVER_TLS", True)
    async with a_scripted_prover(says()) as prover, NeuronClient(tls="off", deadlines=PATIENT) as client:
        with pytest.raises(Disconnected, match=r"--neuron\.tls on"):
            await client.generate(prover, REQUEST, ALICE)


async def test_tls_to_a_plain_port_is_told_what_to_set() -> None:
    async with a_gate() as gate, NeuronClient(tls="on") as client:
        with pytest.raises(Unreachable, match=r"no TLS .*--axon\.tls on.*--neuron\.tls off"):
            await client.generate(gate.place, REQUEST, ALICE)


async def test_a_peer_that_never_ends_its_handshake_is_unreachable() -> None:
    with bind("127.0.0.1", 0) as silent:
        async with NeuronClient(tls="on", deadlines=replace(PATIENT, connect_s=0.5)) as client:
            with pytest.raises(Unreachable, match=r"TLS handshake within 0\.5 s"):
                await client.generate(Place(bound_port(silent)), REQUEST, ALICE)


async def test_a_hotkey_that_is_none_is_never_called() -> None:
    async with a_gate(tls=ServerTls(BOB)) as gate, NeuronClient(tls="on") as client:
        with pytest.raises(Unreachable, match="expected an ss58 address"):
            await client.status(gate.place, Hotkey("nobody"), ALICE)


def test_a_pinning_context_refuses_blocking_sockets_which_it_could_not_check() -> None:
    import socket

    with socket.socket() as sock, pytest.raises(TypeError, match="blocking socket"):
        pinning_context(Clock()).wrap_socket(sock, server_hostname="any")


def a_client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    hello = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="any")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return outgoing.read()


async def until_closed(stream: ByteStream) -> None:
    """Wait until the other side lets go of this connection."""
    with anyio.fail_after(30), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            await stream.receive()


HELLO = a_client_hello()


@pytest.mark.parametrize(
    "said", [b"", HELLO[:1], HELLO[: len(HELLO) // 2], HELLO], ids=["nothing", "a byte", "half", "a hello"]
)
async def test_a_handshake_that_stops_is_cut_off_and_counted_until_then(said: bytes) -> None:
    limits = Limits(header_timeout_s=0.8, max_connections=2)
    closed: list[str] = []

    async def note(what: str, stream: ByteStream) -> None:
        await until_closed(stream)
        closed.append(what)

    async with a_gate(handler=answers, tls=ServerTls(BOB), limits=limits) as gate:
        held = [await anyio.connect_tcp("127.0.0.1", gate.port) for _ in range(2)]
        for stream in held:
            if said:
                await stream.send(said)
        third = await anyio.connect_tcp("127.0.0.1", gate.port)
        async with anyio.create_task_group() as tasks:
            for what, stream in zip(("held", "held", "too many"), (*held, third), strict=True):
                tasks.start_soon(note, what, stream)
        assert closed == ["too many", "held", "held"]

        async with NeuronClient(tls="on") as client:
            await client.generate(gate.place, REQUEST, ALICE)
        for stream in (*held, third):
            await stream.aclose()


async def test_a_handshake_that_trickles_for_ever_is_cut_off() -> None:
    async with (
        a_gate(tls=ServerTls(BOB), limits=Limits(header_timeout_s=0.3)) as gate,
        await anyio.connect_tcp("127.0.0.1", gate.port) as stream,
    ):
        whole = anyio.Event()

        async def trickle() -> None:
            for byte in HELLO:
                await anyio.sleep(0.02)
                try:
                    await stream.send(bytes([byte]))
                except anyio.BrokenResourceError:
                    return
            whole.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle)
            await until_closed(stream)
            assert not whole.is_set()
            tasks.cancel_scope.cancel()


async def connected(gate: Served, limit: int) -> None:
    """Fails unless this many connections fit in at once."""
    streams = [await tls_connection(gate.port) for _ in range(limit)]
    for stream in streams:
        await stream.aclose()


@pytest.mark.parametrize(
    "said",
    [b"\x16\x03\x01\x00\x05hello", HELLO[:40], b"GET / HTTP/1.1\r\n\r\n", b"\x00"],
    ids=["no hello", "half a hello", "plain HTTP", "a byte"],
)
async def test_a_handshake_that_fails_leaves_nothing_counted(said: bytes) -> None:
    async with a_gate(tls=ServerTls(BOB), limits=Limits(max_connections=2)) as gate:
        for _ in range(5):
            async with await anyio.connect_tcp("127.0.0.1", gate.port) as stream:
                await stream.send(said)
                await stream.send_eof()
                await until_closed(stream)

        await connected(gate, 2)


async def test_a_hello_in_many_pieces_is_a_hello() -> None:
    async with (
        a_gate(tls=ServerTls(BOB)) as gate,
        await anyio.connect_tcp("127.0.0.1", gate.port) as stream,
    ):
        for byte in HELLO:
            await stream.send(bytes([byte]))
            await anyio.lowlevel.checkpoint()

        with anyio.fail_after(30.0):
            assert (await stream.receive())[0] == 22


async def test_garbage_after_the_first_byte_of_a_handshake_does_not_stop_the_server() -> None:
    async with a_gate(handler=answers, tls=ServerTls(BOB)) as gate, NeuronClient(tls="on") as client:
        async with await anyio.connect_tcp("127.0.0.1", gate.port) as stream:
            with contextlib.suppress(anyio.BrokenResourceError):
                for _ in range(20):
                    await stream.send(b"\x16" + b"\xff" * 100_000)
            await until_closed(stream)

        await client.generate(gate.place, REQUEST, ALICE)


def test_a_signer_vouches_once_per_certificate() -> None:
    class Counting:
        signed = 0
        ss58_address, public_key, crypto_type = BOB.ss58_address, BOB.public_key, BOB.crypto_type

        def sign(self, payload: bytes) -> bytes:
            self.signed += 1
            return bytes(Keypair.sign(BOB, payload))

    signer = Counting()
    tls = ServerTls(signer)
    for _ in range(10):
        tls.context()

    assert signer.signed == 1
