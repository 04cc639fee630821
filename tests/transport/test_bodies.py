"""Bodies that are too large, lie about their size, or never end."""

from __future__ import annotations

import anyio
import pytest

from targon.transport import Limits, NeuronClient, Refused
from tests.transport.world import (
    ALICE,
    a_gate,
    a_request,
    head,
    post,
    read_reply,
    send_raw,
    signed_headers,
)

pytestmark = pytest.mark.anyio

SMALL = Limits(max_body_bytes=1000)
IMPATIENT = Limits(body_timeout_s=0.6, body_grace_s=0.2, min_body_bytes_per_s=1000)


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def chunked_headers(body: bytes) -> dict[str, str]:
    headers = signed_headers(body) | {"Transfer-Encoding": "chunked"}
    del headers["Content-Length"]
    return headers


async def test_an_oversized_body_is_refused_by_its_declared_size_alone() -> None:
    async with a_gate(limits=SMALL) as gate:
        reply = await send_raw(gate.port, head(signed_headers() | {"Content-Length": "1001"}))

        assert (reply.status, reply.code) == (413, "body_too_large")
        assert (reply.error["got"], reply.error["expected"]) == ("1001 bytes", "at most 1000 bytes")
        assert reply.headers["connection"] == "close"


async def test_a_body_at_the_limit_is_accepted() -> None:
    async with a_gate(limits=SMALL) as gate:
        assert (await post(gate.port, b"x" * 1000)).status == 200


async def test_an_absurd_content_length_is_refused() -> None:
    async with a_gate() as gate:
        reply = await send_raw(gate.port, head(signed_headers() | {"Content-Length": "9" * 19}))

        assert reply.code == "body_too_large"


async def test_a_body_without_a_declared_size_is_cut_off_at_the_limit() -> None:
    async with a_gate(limits=SMALL) as gate:
        pieces = [chunk(b"x" * 400)] * 3

        reply = await send_raw(gate.port, head(chunked_headers(b"x")), *pieces)

        assert (reply.status, reply.code) == (413, "body_too_large")
        assert reply.headers["connection"] == "close"
        assert gate.handled == []


async def test_a_chunked_body_within_the_limit_is_accepted() -> None:
    async with a_gate(limits=SMALL) as gate:
        body = b"x" * 800

        reply = await send_raw(
            gate.port, head(chunked_headers(body)), chunk(body[:300]), chunk(body[300:]), b"0\r\n\r\n"
        )

        assert reply.status == 200
        assert gate.handled[0].body == body


async def test_a_post_that_declares_no_body_at_all_is_refused() -> None:
    async with a_gate() as gate:
        headers = signed_headers(b"")
        del headers["Content-Length"]

        reply = await send_raw(gate.port, head(headers))

        assert (reply.status, reply.code) == (411, "length_required")


async def test_a_get_with_a_body_is_refused() -> None:
    async with a_gate() as gate:
        headers = signed_headers(b"", method="GET", path="/v1/status") | {"Content-Length": "5"}

        reply = await send_raw(gate.port, head(headers, method="GET", path="/v1/status"))

        assert (reply.status, reply.code) == (413, "body_too_large")


async def test_a_sender_that_is_refused_early_still_gets_to_read_why() -> None:
    async with a_gate(limits=Limits(max_body_bytes=50_000)) as gate, NeuronClient() as client:
        request = a_request(salt="0a" * 32, messages=a_request().messages * 200, model="m" * 256)
        large = request.model_copy(
            update={"messages": tuple(m.model_copy(update={"content": "x" * 9000}) for m in request.messages)}
        )

        with pytest.raises(Refused) as refused:
            await client.generate(gate.place, large, ALICE)

        assert (refused.value.status, refused.value.code) == (413, "body_too_large")


async def test_a_client_that_sends_a_byte_now_and_then_for_ever_is_cut_off() -> None:
    async with a_gate(limits=IMPATIENT) as gate, await anyio.connect_tcp("127.0.0.1", gate.port) as stream:
        await stream.send(head(signed_headers() | {"Content-Length": "100000"}))

        async def trickle() -> None:
            while True:
                await stream.send(b"x")
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle)
            with anyio.fail_after(30.0):
                reply = await read_reply(stream)
            tasks.cancel_scope.cancel()

        assert (reply.status, reply.code) == (408, "body_too_slow")
        assert gate.refusals("body_too_slow") == 1


async def test_a_client_that_keeps_the_least_rate_but_never_ends_is_cut_off_by_the_total_time() -> None:
    limits = Limits(body_timeout_s=0.5, body_grace_s=0.1, min_body_bytes_per_s=1)
    async with a_gate(limits=limits) as gate, await anyio.connect_tcp("127.0.0.1", gate.port) as stream:
        await stream.send(head(signed_headers() | {"Content-Length": "100000"}))
        await stream.send(b"x" * 5000)

        reply = await read_reply(stream)

        assert reply.code == "body_too_slow"


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind() -> None:
    async with a_gate(limits=Limits(max_concurrent=1)) as gate:
        async with await anyio.connect_tcp("127.0.0.1", gate.port) as stream:
            await stream.send(head(signed_headers() | {"Content-Length": "1000"}) + b"x")
            await anyio.sleep(0.05)
        with anyio.fail_after(30.0):
            while gate.registry.get_sample_value("targon_requests_abandoned_total") != 1:
                await anyio.sleep(0.005)

        assert (await post(gate.port)).status == 200
