"""What the adapter adds to calling an engine over HTTP directly: time per request, and per streamed token.

A process of its own streams vLLM's events, each token as an event when it is due. It is asked by the adapter and, in
turns, with bare aiohttp that parses each event's JSON and does nothing with it. Per request: by how much the median
time grows until a whole answer of one token is there. Per token: by how much this process's processor time grows over
answers of many tokens, divided by their number; what the machine does besides doesn't count into it.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection

import aiohttp
import anyio
from aiohttp import web

from benchmarks.row import Row
from targon.engines import GenerateTask, ModelIdentity
from targon.engines.remote import Capabilities, RemoteEngine, Served
from targon.engines.remote.calls import Calls
from targon.engines.remote.folder import ModelFolder
from targon.engines.remote.vllm import VllmBackend
from targon.engines.remote.web import Web
from targon.protocol import ChatMessage, Sampling

MODEL = "m"
TOKENS = 256
STREAMS = 16
"""Answers at once, as many as an adapter has under way unless it is told otherwise."""
INTERVAL_S = 0.008
"""Between two tokens of an answer, so that each comes as an event of its own: 2,000 tokens a second in all."""
MESSAGES = (ChatMessage(role="user", content="Tell me about the sea and the wind."),)

Call = Callable[[int], Coroutine[object, object, None]]
"""Asks for so many tokens, and takes them all."""


def run(quick: bool) -> list[Row]:
    folder = ModelFolder.open("default")
    prompt = list(folder.chat.encode(MESSAGES))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs, prompt), daemon=True)
    server.start()
    try:
        return anyio.run(_measure, f"http://127.0.0.1:{ours.recv()}", folder, quick)
    finally:
        server.kill()


async def _measure(url: str, folder: ModelFolder, quick: bool) -> list[Row]:
    async with aiohttp.ClientSession() as session, Web(url) as near:
        calls = Calls(near, timeout_s=10.0, max_requests=16, max_queue=64)
        engine = _engine(calls, folder)

        async def adapter(tokens: int) -> None:
            sampling = Sampling(seed="0" * 16, temperature=0.8, max_tokens=tokens)
            async for _ in engine.generate(GenerateTask(MESSAGES, sampling, 1)):
                pass

        async def directly(tokens: int) -> None:
            body = {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": tokens, "stream": True}
            async with session.post(f"{url}/v1/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        json.loads(line[6:])

        ways: dict[str, Call] = {"adapter": adapter, "directly": directly}
        requests = await _medians(ways, 50 if quick else 400)
        tokens = await _per_token(ways, 3 if quick else 12)
    return [
        Row(
            "added per request",
            (requests["adapter"] - requests["directly"]) * 1e3,
            "ms",
            "<= 1 ms",
            f"one token: {requests['adapter'] * 1e3:.2f} ms against {requests['directly'] * 1e3:.2f} ms",
        ),
        Row(
            "added per streamed token",
            (tokens["adapter"] - tokens["directly"]) * 1e6,
            "us",
            "<= 20 us",
            f"{STREAMS} x {TOKENS} tokens: {tokens['adapter'] * 1e6:.0f} us against "
            f"{tokens['directly'] * 1e6:.0f} us each",
        ),
    ]


async def _medians(ways: dict[str, Call], rounds: int) -> dict[str, float]:
    """Seconds for an answer of one token; ways take turns."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            began = time.perf_counter()
            await call(1)
            seen[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seen.items()}


async def _per_token(ways: dict[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of processor time for each token of long answers, several at once; ways take turns."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            began = time.process_time()
            async with anyio.create_task_group() as group:
                for _ in range(STREAMS):
                    group.start_soon(call, TOKENS)
            seen[name].append((time.process_time() - began) / (TOKENS * STREAMS))
    return {name: statistics.median(values) for name, values in seen.items()}


def _engine(calls: Calls, folder: ModelFolder) -> RemoteEngine:
    served = Served(engine="vllm", model=MODEL, models=(MODEL,))
    capabilities = Capabilities(
        kind="vllm",
        served=served,
        dialects=("targon/1",),
        token_ids=True,
        logprobs=True,
        prompt_logprobs=0,
        seeds=False,
        context_length=folder.context_length,
        difference=None,
        findings=(),
    )
    identity = ModelIdentity(
        name=folder.name,
        model_digest=folder.digest,
        dtype="float32",
        engine="vllm",
        vocab_size=folder.vocab_size,
        context_length=folder.context_length,
        eos_ids=folder.eos_ids,
        dialects=("targon/1",),
        max_batch=16,
    )
    return RemoteEngine(VllmBackend(calls), folder, identity, capabilities)


def _serve(started: Connection, prompt: list[int]) -> None:
    """Streams the events of a vLLM that answers at once, in a process of its own."""

    async def complete(request: web.Request) -> web.StreamResponse:
        tokens = (await request.json())["max_tokens"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for place in range(tokens):
            choice = {
                "index": 0,
                "text": "Hello",
                "logprobs": {
                    "text_offset": [0],
                    "token_logprobs": [-0.5],
                    "tokens": ["token_id:19556"],
                    "top_logprobs": [{"token_id:19556": -0.5}],
                },
                "finish_reason": "length" if place == tokens - 1 else None,
                "stop_reason": None,
                "prompt_token_ids": prompt if place == 0 else None,
                "token_ids": [19556],
            }
            await response.write(_event({"choices": [choice]}))
            if tokens > 1:
                await anyio.sleep(INTERVAL_S)
        usage = {"prompt_tokens": len(prompt), "completion_tokens": tokens}
        await response.write(_event({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", complete)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        started.send(runner.addresses[0][1])
        await anyio.sleep_forever()

    anyio.run(serve)


def _event(fields: dict[str, object]) -> bytes:
    event = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL, **fields}
    return b"data: " + json.dumps(event).encode() + b"\n\n"
