"""Users served by real processes: a prover, a verifier with its gateway or a gateway of its own, and a key."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
from openai import AsyncOpenAI

from targon.cli import main
from targon.engines import serve_engine
from targon.protocol import filed
from targon.protocol.filed import ReceiptStatement
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.protocol.receipts import check
from tests.neuron_processes import Network, free_port
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "What is a prime?"}]
START_S = 240.0


@pytest.mark.parametrize("split", [False, True], ids=["within the verifier", "a process of its own"])
async def test_users_are_answered_with_receipts_that_verify(tmp_path: Path, capsys, split: bool) -> None:
    engine, line, port = tmp_path / "run" / "engine.sock", tmp_path / "run" / "gateway.sock", free_port()
    keys = tmp_path / ("gateway" if split else "verifier")
    network = Network(tmp_path, ["--engine.socket", str(engine)])
    network.enrol("verifier", stake=100.0)
    network.enrol("prover")
    capsys.readouterr()
    assert main(("key", "create", "--name", "joe", "--data.path", str(keys))) == 0
    key = capsys.readouterr().out.strip()
    place = ("--gateway.port", str(port), "--gateway.access_log")
    async with serve_engine(TinyEngine(), engine):
        with ExitStack() as stack:
            stack.enter_context(network.prover("prover", free_port()))
            if split:
                stack.enter_context(network.verifier("--gateway.off", "--gateway.socket", str(line)))
                own = (*place, "--gateway.socket", str(line), "--data.path", str(keys))
                process = stack.enter_context(network.process("gateway", "gateway", *own))
            else:
                process = stack.enter_context(network.verifier(*place))
            async with client_of(port, key) as client:
                model = await first_model(client)
                answer = await client.chat.completions.create(model=model, messages=HI, max_tokens=16)
                stream = await client.chat.completions.create(
                    model=model,
                    messages=HI,
                    max_tokens=16,
                    stream=True,
                )
                chunks = [chunk async for chunk in stream]
                note = answer.choices[0].model_extra["targon"]
                told = await client.get(f"/receipts/{note['receipt_id']}", cast_to=dict)
            process.terminate()
            with anyio.fail_after(120):
                code = await anyio.to_thread.run_sync(process.wait)
    request, response = (
        GenerateRequest.from_json(note["request"]),
        GenerateResponse.from_json(note["response"]),
    )
    check(response.receipt, request, response.completion)
    filed.check(ReceiptStatement.from_bytes(json.dumps(told)), receipt_id=note["receipt_id"])
    assert answer.choices[0].message.content == response.completion.text
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    assert code == 0
    said = (tmp_path / ("gateway.out" if split else "verifier.out")).read_text()
    assert "key=joe" in said
    assert "prime" not in said
    assert key not in said


def client_of(port: int, key: str) -> Any:
    url = f"http://127.0.0.1:{port}/v1"
    return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, default_headers={"Targon-Receipt": "full"})


async def first_model(client: Any) -> str:
    """The model that is served, once one is."""
    with anyio.fail_after(START_S):
        while True:
            try:
                names = [model.id async for model in client.models.list()]
                if names:
                    await client.chat.completions.create(model=names[0], messages=HI, max_tokens=1)
                    return names[0]
            except (openai.APIConnectionError, openai.InternalServerError):
                pass
            await anyio.sleep(0.2)
