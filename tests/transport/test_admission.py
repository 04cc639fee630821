"""The gate: who gets in, in what order it is decided, and what everyone else is told."""

from __future__ import annotations

import time

import anyio
import pytest
from bittensor import http_auth
from starlette.types import Receive, Send

from targon.protocol.primitives import Hotkey
from targon.transport import Allowance, Code, Limits, Refusal, SignedRequest, send_json
from tests.transport.world import (
    ALICE,
    CHARLIE,
    PROVER,
    VERIFIER,
    Reply,
    TurnedClock,
    a_gate,
    head,
    post,
    read_reply,
    send_raw,
    signed_headers,
)

pytestmark = pytest.mark.anyio


async def test_a_signed_request_reaches_its_handler_with_the_caller_proven() -> None:
    async with a_gate() as gate:
        reply = await post(gate.port, b'{"a": 1}')

        assert reply.status == 200
        assert gate.handled == [SignedRequest(VERIFIER, b'{"a": 1}')]


async def test_one_connection_carries_many_requests() -> None:
    async with a_gate() as gate, await anyio.connect_tcp("127.0.0.1", gate.port) as stream:
        for _ in range(3):
            await stream.send(head(signed_headers(b"{}")) + b"{}")
            assert (await read_reply(stream)).status == 200


async def test_an_unsigned_request_is_refused_and_told_what_is_missing() -> None:
    async with a_gate() as gate:
        headers = {"Content-Type": "application/json", "Content-Length": "2"}

        reply = await post(gate.port, headers=headers)

        assert (reply.status, reply.code) == (401, "unsigned")
        assert http_auth.HEADER_SIGNATURE in reply.error["expected"]
        assert gate.refusals("unsigned") == 1


async def test_a_request_for_another_receiver_is_refused_naming_both() -> None:
    async with a_gate() as gate:
        reply = await post(gate.port, headers=signed_headers(receiver=CHARLIE.ss58_address))

        assert (reply.status, reply.code) == (401, "wrong_receiver")
        assert (reply.error["got"], reply.error["expected"]) == (CHARLIE.ss58_address, PROVER)


@pytest.mark.parametrize("age_s", [-3.0, 11.0, 1e6])
async def test_a_stale_nonce_is_refused(age_s: float) -> None:
    async with a_gate() as gate:
        reply = await post(gate.port, headers=signed_headers(nonce_ns=time.time_ns() - int(age_s * 1e9)))

        assert (reply.status, reply.code) == (401, "stale_nonce")
        assert "clock" in reply.error["message"]


@pytest.mark.parametrize("age_s", [-1.9, 0.0, 9.9])
async def test_a_nonce_within_the_window_is_accepted(age_s: float) -> None:
    turned = TurnedClock()
    async with a_gate(clock=turned.clock()) as gate:
        headers = signed_headers(nonce_ns=turned.now_ns - int(age_s * 1e9))

        assert (await post(gate.port, headers=headers)).status == 200


async def test_a_replayed_request_is_refused() -> None:
    async with a_gate() as gate:
        headers = signed_headers()
        assert (await post(gate.port, headers=headers)).status == 200

        reply = await post(gate.port, headers=headers)

        assert (reply.status, reply.code) == (401, "replayed")
        assert len(gate.handled) == 1


async def test_a_forged_request_does_not_spend_the_nonce_that_it_claims() -> None:
    async with a_gate() as gate:
        headers = signed_headers(b"{}")
        forged = await post(gate.port, b"[]", headers=headers)
        assert (forged.status, forged.code) == (401, "bad_signature")

        assert (await post(gate.port, b"{}", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/v1/generate", b'{"a":2}'), ("POST", "/v1/status", b"{}"), ("GET", "/v1/generate", b"{}")],
)
async def test_a_signature_over_anything_else_is_refused(method: str, path: str, body: bytes) -> None:
    async with a_gate() as gate:
        headers = signed_headers(body, method=method, path=path)
        headers |= {"Content-Type": "application/json", "Content-Length": "2"}

        reply = await post(gate.port, b"{}", headers=headers)

        assert (reply.status, reply.code) == (401, "bad_signature")
        assert headers[http_auth.HEADER_SIGNATURE][2:] not in reply.body.decode()


MALFORMED = {
    http_auth.HEADER_VERSION: "2",
    http_auth.HEADER_HOTKEY: "5NotAnAddress",
    http_auth.HEADER_NONCE: "1_000",
    http_auth.HEADER_SIGNATURE: "0x1234",
    http_auth.HEADER_CRYPTO: "ed25519",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_header_is_refused_by_name(name: str) -> None:
    async with a_gate() as gate:
        reply = await post(gate.port, headers=signed_headers() | {name: MALFORMED[name]})

        assert (reply.status, reply.code) == (400, "malformed_auth")
        assert name in reply.error["message"]


@pytest.mark.parametrize("name", [http_auth.HEADER_RECEIVER, http_auth.HEADER_NONCE])
async def test_a_missing_header_is_refused_by_name(name: str) -> None:
    async with a_gate() as gate:
        headers = signed_headers()
        del headers[name]

        reply = await post(gate.port, headers=headers)

        assert (reply.status, reply.code) == (400, "malformed_auth")
        assert name in reply.error["got"]


async def test_a_header_that_comes_twice_is_refused() -> None:
    async with a_gate() as gate:
        raw = head(signed_headers()).replace(b"\r\n\r\n", b"\r\nX-Bittensor-Nonce: 1\r\n\r\n")

        reply = await send_raw(gate.port, raw, b"{}")

        assert reply.code == "malformed_auth"
        assert "twice" in reply.error["got"]


async def test_the_same_key_in_another_address_format_is_no_second_identity() -> None:
    from bittensor.sp_core import ss58_encode

    async with a_gate() as gate:
        other = ss58_encode(ALICE.public_key, 0)

        reply = await post(gate.port, headers=signed_headers() | {http_auth.HEADER_HOTKEY: other})

        assert reply.code == "malformed_auth"


async def test_the_policy_decides_before_the_body_is_read() -> None:
    def nobody(hotkey: Hotkey) -> None:
        raise Refusal(Code.NOT_REGISTERED, "no UID", got=hotkey)

    async with a_gate(policy=nobody) as gate:
        # 200,000 bytes are announced; not one is sent.
        headers = signed_headers(b"x") | {"Content-Length": "200000"}

        reply = await send_raw(gate.port, head(headers))

        assert (reply.status, reply.code) == (403, "not_registered")
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/nothing", 404, "no_such_path"),
        ("POST", "/v1/generate?x=1", 404, "no_such_path"),
        ("DELETE", "/v1/generate", 405, "method_not_allowed"),
        ("POST", "/healthz", 404, "no_such_path"),
    ],
)
async def test_other_paths_and_methods_are_refused(method: str, path: str, status: int, code: str) -> None:
    async with a_gate() as gate:
        reply = await send_raw(gate.port, head(signed_headers(b""), method=method, path=path))

        assert (reply.status, reply.code) == (status, code)


@pytest.mark.parametrize(
    "change", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}], ids=["text", "gzip"]
)
async def test_other_content_is_refused(change: dict[str, str]) -> None:
    async with a_gate() as gate:
        reply = await post(gate.port, headers=signed_headers() | change)

        assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_the_liveness_probe_needs_no_signature() -> None:
    async with a_gate() as gate:
        reply = await send_raw(gate.port, head({}, method="GET", path="/healthz"))

        assert (reply.status, reply.body) == (200, b'{"status":"ok"}')


async def test_a_hotkey_that_asks_too_often_is_slowed_down_and_let_in_again_later() -> None:
    turned = TurnedClock()
    limits = Limits(per_hotkey=Allowance(per_second=1.0, burst=2, concurrent=8))
    async with a_gate(limits=limits, clock=turned.clock()) as gate:

        async def ask() -> int:
            turned.now_ns += 1
            return (await post(gate.port, headers=signed_headers(nonce_ns=turned.now_ns))).status

        assert [await ask() for _ in range(3)] == [200, 200, 429]
        turned.turn(1.0)
        assert await ask() == 200
        assert gate.refusals("too_many_requests") == 1


async def test_an_address_is_limited_whatever_hotkeys_it_claims() -> None:
    limits = Limits(per_address=Allowance(per_second=0.001, burst=2, concurrent=8))
    async with a_gate(limits=limits) as gate:
        codes = [
            (await post(gate.port, headers=signed_headers(signer=signer))).status
            for signer in (ALICE, CHARLIE, ALICE)
        ]

        assert codes == [200, 200, 429]


async def test_nobody_can_spend_the_allowance_of_a_hotkey_that_is_not_theirs() -> None:
    limits = Limits(per_hotkey=Allowance(per_second=0.001, burst=2, concurrent=8))
    async with a_gate(limits=limits) as gate:
        for _ in range(5):
            forged = signed_headers(b"{}", signer=CHARLIE) | {http_auth.HEADER_HOTKEY: VERIFIER}
            assert (await post(gate.port, headers=forged)).code == "bad_signature"

        assert (await post(gate.port)).status == 200


async def _block_until(release: anyio.Event, entered: anyio.Event, send: Send) -> None:
    entered.set()
    await release.wait()
    await send_json(send, 200, b"{}")


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        (Limits(per_hotkey=Allowance(99.0, 99, 1)), 429, "too_many_concurrent"),
        (Limits(per_address=Allowance(99.0, 99, 1)), 429, "too_many_concurrent"),
        (Limits(max_concurrent=1), 503, "overloaded"),
    ],
    ids=["hotkey", "address", "all"],
)
async def test_what_runs_at_once_is_limited(limits: Limits, status: int, code: str) -> None:
    release, entered = anyio.Event(), anyio.Event()

    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        await _block_until(release, entered, send)

    async with a_gate(handler=handler, limits=limits) as gate, anyio.create_task_group() as tasks:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await post(gate.port)).status)

        tasks.start_soon(ask)
        await entered.wait()
        refused = await post(gate.port)
        release.set()
        while not statuses:
            await anyio.sleep(0.01)

        assert (refused.status, refused.code) == (status, code)
        assert int(refused.headers["retry-after"]) >= 1
        assert statuses == [200]
        assert (await post(gate.port)).status == 200


async def test_a_full_nonce_store_refuses_rather_than_let_a_replay_in() -> None:
    async with a_gate(limits=Limits(max_nonces=2)) as gate:
        assert [(await post(gate.port)).status for _ in range(3)] == [200, 200, 503]


async def test_a_handler_that_breaks_is_answered_for_without_its_details() -> None:
    async def handler(signed: SignedRequest, receive: Receive, send: Send) -> None:
        raise RuntimeError("the secret of the house")

    async with a_gate(handler=handler) as gate:
        reply = await post(gate.port)

        assert (reply.status, reply.code) == (500, "internal")
        assert "secret" not in reply.body.decode()


async def get(port: int, path: str, signed_path: str | None = None) -> Reply:
    return await send_raw(
        port, head(signed_headers(b"", method="GET", path=signed_path or path), method="GET", path=path)
    )


async def test_a_query_reaches_the_handler_of_a_route_that_takes_one() -> None:
    async with a_gate() as gate:
        assert (await get(gate.port, "/v1/log?start=7")).status == 200
        assert (await get(gate.port, "/v1/log")).status == 200

        assert [signed.query for signed in gate.handled] == ["start=7", ""]


async def test_the_signature_covers_the_query() -> None:
    async with a_gate() as gate:
        reply = await get(gate.port, "/v1/log?start=8", signed_path="/v1/log?start=7")

        assert (reply.status, reply.code, gate.handled) == (401, "bad_signature", [])


async def test_a_path_whose_route_takes_no_query_is_none_with_one() -> None:
    async with a_gate() as gate:
        reply = await get(gate.port, "/v1/status?start=7")

        assert (reply.status, reply.code, gate.handled) == (404, "no_such_path", [])


async def test_queries_do_not_grow_the_metrics() -> None:
    async with a_gate() as gate:
        for number in range(3):
            await get(gate.port, f"/v1/log?start={number}")

        assert gate.registry.get_sample_value("targon_requests_admitted_total", {"path": "/v1/log"}) == 3


async def test_a_query_counts_towards_the_size_of_the_headers() -> None:
    async with a_gate(limits=Limits(max_header_bytes=2_000)) as gate:
        reply = await get(gate.port, "/v1/log?start=" + "7" * 1_900)

        assert (reply.status, reply.code) == (431, "headers_too_large")
