"""Both roles as processes, told what to do by files, environment and flags."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import anyio
import pytest

from targon.engines.server import serve_engine
from targon.ledger import Attempt, Verdict
from tests.neuron_processes import Network, free_port
from tests.tiny_engine import TinyEngine


@pytest.fixture
async def network(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[Network]:
    socket = tmp_path / "engine.sock"
    async with serve_engine(TinyEngine(), socket):
        yield Network(tmp_path, ("--engine.socket", str(socket)))


async def shown(port: int, path: str) -> tuple[int, str]:
    """What a role shows its operator, as soon as it shows anything."""
    with anyio.fail_after(120):
        while True:
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"http://127.0.0.1:{port}{path}") as answer,
                ):
                    return answer.status, await answer.text()
            except aiohttp.ClientConnectionError:
                await anyio.sleep(0.1)


@pytest.mark.anyio
async def test_roles_do_what_file_environment_and_flags_say(network, monkeypatch):
    prover, verifier = network.enrol("prover"), network.enrol("verifier", stake=10_000)
    axon_port, prover_port, verifier_port = free_port(), free_port(), free_port()
    file = network.folder / "both.toml"
    file.write_text(
        f"""
        [prover]
        axon = {{ port = {axon_port} }}
        metrics.port = {prover_port}
        neuron.name = "prover-7"
        logging = {{ trace = true, json_lines = true }}

        [verifier]
        profile = "demo"
        data.path = "{network.folder / "verifier"}"
        neuron = {{ max_tokens = 32, sample_size = 3 }}
        """
    )
    monkeypatch.setenv("TARGON_VERIFIER__METRICS__PORT", str(verifier_port))
    config = ("--config", str(file))
    with (
        network.running("prover", "prover", *config),
        network.running("verifier", "verifier", *config, "--logging.trace", "--axon.port", str(free_port())),
    ):
        await network.wait_for(lambda events: any(isinstance(event, Verdict) for event in events), "verdict")
        of_prover, of_verifier = await shown(prover_port, "/metrics"), await shown(verifier_port, "/metrics")
        healths = [await shown(port, "/healthz") for port in (prover_port, verifier_port)]
    assert 'targon_neuron_info{name="prover-7",role="prover",version=' in of_prover[1]
    assert 'role="verifier"' in of_verifier[1]
    assert 'targon_verifier_provers{tier="Bronze"} 1.0' in of_verifier[1]
    assert [health[0] for health in healths] == [200, 200]
    asked = [event.prover for event in await network.events() if isinstance(event, Attempt)]
    assert set(asked) == {prover}

    lines = [json.loads(line) for line in (network.folder / "prover.out").read_text().splitlines()]
    assert {line["neuron"] for line in lines} == {"prover-7"}
    assert "served POST '/v1/generate': 200" in {line["event"] for line in lines}
    traced = (network.folder / "verifier.out").read_text()
    assert f"asked POST http://127.0.0.1:{axon_port}/v1/generate: 200" in traced
    # No signature (64 bytes, in hex), and nothing of a request or an answer.
    assert not re.search(r"[0-9a-f]{128}", traced + (network.folder / "prover.out").read_text())
    assert '"messages"' not in traced
    assert verifier not in asked


@pytest.mark.anyio
async def test_a_port_of_metrics_that_is_taken_is_named(network):
    network.enrol("verifier")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with network.running("verifier", "verifier", "--metrics.port", str(port), "--axon_off") as process:
            with anyio.fail_after(120):
                assert await anyio.to_thread.run_sync(process.wait) == 1
    said = (network.folder / "verifier.out").read_text()
    assert f"port {port} on 127.0.0.1 is already in use" in said
    assert "--metrics.port" in said
