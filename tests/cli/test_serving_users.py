"""The gateway within a verifier, and one that is a process of its own, as the commands wire them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from prometheus_client import CollectorRegistry

from targon.cli import main
from targon.cli.gateway_options import VerifierGatewayOptions
from targon.cli.serving_users import VerifierGateway, opened_door, opened_keys
from targon.gateway.line import LineClient
from targon.transport import NeuronClient
from tests.gateway.dispatch_world import KEYS, VERIFIER, ScriptedDesk, a_scripted_prover, an_order, answers
from tests.neuron_processes import free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def a_gateway(folder: Path, **options):
    """The gateway of a verifier whose desk is scripted, with one prover; and what tells how the verifier fared."""
    given = VerifierGatewayOptions(port=free_port(), open=True, drain=60.0, **options)
    stopped = anyio.Event()
    async with AsyncExitStack() as stack:
        prover = await stack.enter_async_context(a_scripted_prover(answers(5, 6, pause_s=0.2), KEYS[1]))
        client = await stack.enter_async_context(NeuronClient(tls="off"))
        door = keys = None
        if not given.off:
            door = stack.enter_context(opened_door(given))
            keys = await stack.enter_async_context(opened_keys(given, folder))
        desk = ScriptedDesk([(KEYS[1], prover)])
        gateway = VerifierGateway(
            given,
            door=door,
            keys=keys,
            desk=desk,
            client=client,
            signer=VERIFIER,
            registry=CollectorRegistry(),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway.run_beside, stopped.wait, stopped.set)
            yield gateway, given, desk, stopped
            gateway.stop()


async def test_a_verifier_serves_users(tmp_path):
    async with a_gateway(tmp_path) as (_, options, desk, _):
        (model,) = desk.models()
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{options.port}/v1", api_key="any") as client:
            answer = await client.chat.completions.create(
                model=model.name, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
            )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert len((answer.choices[0].model_extra or {})["targon"]["receipt_id"]) == 64


async def test_users_come_first_when_a_verifier_is_stopped(tmp_path):
    async with a_gateway(tmp_path) as (gateway, options, desk, stopped):
        (model,) = desk.models()
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{options.port}/v1", api_key="any") as client:
            stream = await client.chat.completions.create(
                model=model.name,
                messages=[{"role": "user", "content": "Say hello."}],
                max_tokens=8,
                stream=True,
            )
            ends: list[str | None] = []
            async for chunk in stream:
                if not ends:
                    gateway.stop()
                    assert not stopped.is_set()
                ends.append(chunk.choices[0].finish_reason)
        assert ends[-1] is not None
        with anyio.fail_after(60):
            await stopped.wait()


async def test_a_verifier_without_users_serves_a_gateway_elsewhere(tmp_path):
    socket = tmp_path / "gateway.sock"
    async with a_gateway(tmp_path, off=True, socket=socket) as (_, options, desk, _):
        line = LineClient(socket)
        async with anyio.create_task_group() as tasks:
            await tasks.start(line.run)
            with anyio.fail_after(60):
                while line.ailing is not None:
                    await anyio.sleep(0.01)
                parts = [part async for part in line.fulfil(an_order(model=desk.models()[0].name))]
            tasks.cancel_scope.cancel()
        with pytest.raises(openai.APIConnectionError):
            async with AsyncOpenAI(
                base_url=f"http://127.0.0.1:{options.port}/v1", api_key="any", max_retries=0
            ) as client:
                await client.models.list()
    assert len(parts) >= 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--gateway.ip", "0.0.0.0"), "without TLS"),
        (("--gateway.ip", "0.0.0.0", "--gateway.plain", "--gateway.open"), "expected loopback"),
        (("--gateway.tls_cert", "/nowhere.pem"), "--gateway.tls_cert /nowhere.pem"),
    ],
)
@pytest.mark.parametrize("role", ["gateway", "verifier"])
def test_what_would_expose_users_is_refused_at_the_start(role, flags, said, tmp_path, capsys):
    wallet = ("--wallet.path", str(tmp_path), "--wallet.name", "w")
    if role == "verifier":
        assert main(("wallet", "create", *wallet)) == 0
        flags = (*flags, *wallet)
    assert main((role, *flags, "--data.path", str(tmp_path))) == 1
    assert said in capsys.readouterr().err


def test_a_gateway_of_its_own_says_that_its_verifier_is_away_and_ends_on_a_signal(tmp_path):
    port, metrics = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "targon.cli", "gateway", "--gateway.port", str(port)),
        *("--gateway.socket", str(tmp_path / "line.sock"), "--data.path", str(tmp_path)),
        *("--metrics.port", str(metrics), "--gateway.open"),
    ]
    with subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            health = _asked(port, "/healthz")
            counted = _asked(metrics, "/metrics")
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert health[0] == 503
    assert "the verifier is away" in json.loads(health[1])["status"]
    assert b"targon_gateway_requests_total" in counted[1]
    assert process.returncode == 0
    assert "serving_users" in said


def _asked(port: int, path: str) -> tuple[int, bytes]:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
