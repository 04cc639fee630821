"""The front as a server: other routes, pages in a browser, ends of it, and what it must never say."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import ssl
from dataclasses import replace

import anyio
import anyio.lowlevel
import openai
import pytest
from pydantic import TypeAdapter

from targon.gateway.api import Bounds, Door, FrontSettings
from targon.gateway.api.front import LIMITS
from targon.gateway.api.replies import ChatCompletion, ChatCompletionChunk, ErrorReply, TextCompletion
from targon.gateway.api.requests import ChatCompletionRequest, CompletionRequest
from targon.gateway.errors import NotAllowed, ServiceFailed
from targon.protocol import filed
from targon.protocol.filed import ReceiptStatement
from targon.transport import PortInUse
from tests.gateway.front_world import MODEL, Script, a_front, chat, delta, read_reply

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Say hello."}]


async def get(world, path: str, **headers: str):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return await world.raw(f"GET {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode())


async def test_a_receipt_is_told_and_verifies(tmp_path):
    async with a_front(tmp_path) as world:
        _, headers, _ = await world.post(chat())
        receipt_id = headers["targon-receipt-id"]
        path = f"/v1/receipts/{receipt_id}"
        status, _, body = await get(world, path, authorization=f"Bearer {world.key}")
        stranger, _, _ = await get(world, path)
    assert (status, stranger) == (200, 401)
    filed.check(ReceiptStatement.from_bytes(body), receipt_id=receipt_id)


async def test_whoever_asks_learns_whether_to_send_requests_here(tmp_path):
    async with a_front(tmp_path, notice_s=0.5) as world:
        before = await get(world, "/healthz")
        world.front.stop()
        during = await get(world, "/healthz")
        served, _, _ = await world.post(chat())
    assert (before[0], json.loads(before[2])) == (200, {"status": "ok"})
    assert (during[0], json.loads(during[2])) == (503, {"status": "stopping"})
    assert served == 200


async def test_a_sane_request_id_is_kept_and_another_replaced(tmp_path):
    async with a_front(tmp_path) as world:
        _, kept, _ = await world.post(chat(), x_request_id="my-id_1.2")
        _, made, _ = await world.post(chat(), x_request_id="bad id; <script>")
        _, too_long, _ = await world.post(chat(), x_request_id="x" * 129)
    assert kept["x-request-id"] == "my-id_1.2"
    assert made["x-request-id"].startswith("req_")
    assert too_long["x-request-id"].startswith("req_")


# -- the document ------------------------------------------------------------------------------------------


async def test_the_document_is_of_what_requests_are_checked_by(tmp_path):
    async with a_front(tmp_path) as world:
        _, _, body = await get(world, "/openapi.json")
    document = json.loads(body)
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/receipts/{receipt_id}",
        "/healthz",
    }
    for path, model in (
        ("/v1/chat/completions", ChatCompletionRequest),
        ("/v1/completions", CompletionRequest),
    ):
        reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert reference == {"$ref": f"#/components/schemas/{model.__name__}"}
        schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs")
        for one in schema["properties"].values():
            one.pop("default", None)  # FastAPI leaves out those that are null
        assert document["components"]["schemas"][model.__name__] == schema


@pytest.mark.parametrize("logprobs", [False, True])
async def test_replies_are_what_the_document_says(tmp_path, logprobs):
    async with a_front(tmp_path) as world:
        older = {"model": MODEL, "prompt": "x"} | ({"logprobs": 0} if logprobs else {})
        _, _, whole = await world.post(chat(logprobs=logprobs))
        _, _, text = await world.post(older, path="/v1/completions")
        _, _, wrong = await world.post(chat(tools=[{}]))
        body = json.dumps(chat(logprobs=logprobs, stream=True, stream_options={"include_usage": True}))
        events = await stream_events(world, "/v1/chat/completions", body)
        older_events = await stream_events(world, "/v1/completions", json.dumps(older | {"stream": True}))
    ChatCompletion.model_validate(whole)
    TextCompletion.model_validate(text)
    ErrorReply.model_validate(wrong)
    for event in events:
        ChatCompletionChunk.model_validate(event)
    for event in older_events:
        TextCompletion.model_validate(event)


async def stream_events(world, path: str, body: str) -> list:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    status, headers, reply = await world.raw((head + body).encode())
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    lines = [line for line in reply.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


async def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    async with a_front(tmp_path) as world:
        status, headers, body = await get(world, "/docs")
    page = body.decode()
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "POST /v1/chat/completions" in page
    for name in ("temperature", "logit_bias", "prompt"):
        assert f"<code>{name}</code>" in page


# -- pages in a browser ------------------------------------------------------------------------------------


async def test_no_page_of_another_origin_is_let_in_unless_it_was_named(tmp_path):
    async with a_front(tmp_path) as world:
        _, headers, _ = await world.post(chat(), origin="https://evil.example")
    assert not [name for name in headers if name.startswith("access-control")]


async def test_a_named_origin_is_let_in_and_others_are_not(tmp_path):
    async with a_front(tmp_path, origins=("https://app.example",)) as world:
        _, named, _ = await world.post(chat(), origin="https://app.example")
        _, failed, _ = await world.post(chat(tools=[{}]), origin="https://app.example")
        _, other, _ = await world.post(chat(), origin="https://evil.example")
        listed = await get(
            world, "/v1/models", origin="https://app.example", authorization=f"Bearer {world.key}"
        )
    for headers in (named, failed, listed[1]):
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert "targon-receipt-id" in headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other
    assert other["vary"] == "origin"


async def test_a_browser_that_asks_first_is_told_what_it_may_send(tmp_path):
    async with a_front(tmp_path, origins=("https://app.example",)) as world:

        async def asked(origin: str):
            return await world.raw(
                f"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n"
                "access-control-request-method: POST\r\n"
                "access-control-request-headers: authorization, content-type, x-stainless-os\r\n\r\n".encode()
            )

        allowed, refused = await asked("https://app.example"), await asked("https://evil.example")
    assert (allowed[0], refused[0]) == (200, 403)
    assert allowed[1]["access-control-allow-headers"] == "authorization, content-type, x-stainless-os"
    assert "POST" in allowed[1]["access-control-allow-methods"]
    assert "access-control-allow-origin" not in refused[1]


# -- ends --------------------------------------------------------------------------------------------------


async def test_what_is_running_ends_well_when_the_gateway_is_stopped(tmp_path):
    hold = asyncio.Event()
    script = Script(pieces=[delta("one", 1), hold.wait, delta(" two", 2)])
    async with a_front(tmp_path, script) as world, world.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        texts = []
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)
            if texts[-1] == "one":
                world.front.stop()
                await anyio.sleep(0.2)
                with pytest.raises(ConnectionRefusedError), socket.socket() as late:
                    late.connect(("127.0.0.1", world.port))
                hold.set()
    assert texts == ["", "one", " two", None]


async def test_what_doesn_t_end_in_time_is_cut_with_an_error(tmp_path):
    script = Script(pieces=[delta("one", 1), anyio.sleep_forever])
    async with a_front(tmp_path, script, drain_s=0.3) as world, world.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)

        async def read() -> None:
            async for _ in stream:
                world.front.stop()

        with anyio.fail_after(5), pytest.raises(openai.APIError, match="the gateway is stopping"):
            await read()
    assert script.hung_up == 1


async def test_a_connection_that_is_open_gets_a_refusal_while_the_rest_ends(tmp_path):
    script = Script(before=functools.partial(anyio.sleep, 1.0))
    async with a_front(tmp_path, script) as world, anyio.create_task_group() as tasks:
        stream = await anyio.connect_tcp("127.0.0.1", world.port)
        body = json.dumps(chat()).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await stream.send(head.encode())
        tasks.start_soon(world.post, chat())
        while not script.orders:
            await anyio.sleep(0.01)
        world.front.stop()
        await anyio.sleep(0.1)
        await stream.send(body)
        async with stream:
            status, headers, reply = await read_reply(stream)
    # it had been let in before; a request that begins later finds nobody
    assert status in {200, 503}
    assert headers["connection"] == "close"
    assert reply


async def test_more_than_is_taken_on_is_refused(tmp_path):
    hold = asyncio.Event()
    script = Script(before=hold.wait)
    async with (
        a_front(tmp_path, script, bounds=Bounds(max_running=1)) as world,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(world.post, chat())
        while not script.orders:
            await anyio.sleep(0.01)
        status, headers, reply = await world.post(chat())
        hold.set()
    assert (status, headers["retry-after"], reply["error"]["code"]) == (503, "1", "overloaded")


async def test_an_answer_that_never_comes_ends_all_the_same(tmp_path):
    script = Script(before=anyio.sleep_forever)
    async with a_front(tmp_path, script, bounds=Bounds(answer_s=0.2)) as world:
        status, _, reply = await world.post(chat())
    assert (status, reply["error"]["code"]) == (504, "timed_out")
    assert script.hung_up == 1


async def test_a_client_that_stops_reading_is_cut_off_and_costs_no_more_than_buffers(tmp_path):
    given = 0

    async def count() -> None:
        nonlocal given
        given += 1
        await anyio.lowlevel.checkpoint()

    pieces = [step for _ in range(3000) for step in (count, delta("x" * 10_000, 1))]
    script = Script(pieces=pieces)
    limits, bounds = replace(LIMITS, write_stall_s=0.5), Bounds(left_s=0.0)
    async with a_front(tmp_path, script, limits=limits, bounds=bounds) as world:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", world.port))
        body = json.dumps(chat(stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode() + body)
        with anyio.fail_after(10):
            while not script.hung_up:
                await anyio.sleep(0.05)
        raw.close()
    assert given < 120, "a megabyte or so, the kernel's part too"


# -- what it serves, where, and what it says ---------------------------------------------------------------


async def test_a_port_that_is_taken_is_named_with_its_flag(tmp_path):
    async with a_front(tmp_path) as world:
        with pytest.raises(PortInUse, match=rf"port {world.port} .*--gateway\.port"):
            Door(FrontSettings(port=world.port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_nothing_is_served_beyond_this_machine_in_the_clear(host):
    with pytest.raises(NotAllowed, match=r"--gateway\.tls_cert .*--gateway\.plain"):
        Door(FrontSettings(host=host, port=0))


def test_plain_http_beyond_this_machine_has_to_be_asked_for():
    with Door(FrontSettings(host="0.0.0.0", port=0, plain=True)) as door:
        assert door.url.startswith("http://0.0.0.0:")


def test_a_certificate_that_can_t_be_used_is_named(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(NotAllowed, match=r"--gateway\.tls_cert .*cert\.pem"):
        Door(FrontSettings(port=0, tls_cert=tmp_path / "cert.pem"))
    with pytest.raises(NotAllowed, match=r"expected its certificate in --gateway\.tls_cert"):
        Door(FrontSettings(port=0, tls_key=tmp_path / "cert.pem"))


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return ("asyncio", {"use_uvloop": request.param})


async def test_users_call_by_https_with_a_certificate_of_the_operator_s(tmp_path):
    cert, key = write_certificate(tmp_path)
    async with a_front(tmp_path, tls_cert=cert, tls_key=key) as world:
        trusted = ssl.create_default_context(cafile=str(cert))
        stream = await anyio.connect_tcp(
            "127.0.0.1", world.port, tls=True, ssl_context=trusted, tls_hostname="localhost"
        )
        async with stream:
            await stream.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            status, _, body = await read_reply(stream)
    assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_both_event_loops_serve_and_stream(tmp_path):
    async with a_front(tmp_path) as world, world.client() as client:
        whole = await client.chat.completions.create(model=MODEL, messages=HI)
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert (whole.choices[0].message.content, streamed) == ("Hello", "Hello")


async def test_the_access_log_has_no_word_of_what_was_said(tmp_path, capsys):
    script = Script(pieces=[delta("the secret answer", 1), ServiceFailed("the prover went away", begun=True)])
    async with a_front(tmp_path, access_log=True) as world:
        await world.post(chat("the secret prompt", user="secret-user"), x_request_id="id-1")
        world.script.pieces = script.pieces
        await world.raw(b"GET /secret-path HTTP/1.1\r\nhost: x\r\n\r\n")
        body = json.dumps(chat("the secret prompt", stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await world.raw(head.encode() + body)
        key = world.key
    captured = capsys.readouterr()
    said = captured.out + captured.err
    lines = [line for line in said.splitlines() if "request " in line and "request_id=" in line]
    assert len(lines) == 3
    assert "request_id=id-1" in lines[0]
    assert "key=tester" in lines[0]
    assert "status=200" in lines[0]
    assert "prompt_tokens=7" in lines[0]
    assert "code=answer_broken_off" in lines[2]
    assert "secret" not in said
    assert key not in said


def write_certificate(folder):
    """A certificate for localhost, and its key, as an operator has them."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path
