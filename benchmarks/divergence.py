"""What it costs to verify: a divergence verdict against generating the same tokens with the same engine.

The verdict is timed from the request to the outcome: prompt rendered, one prefill, noise for every position
over the whole vocabulary (top-p 1, the dearest case, unless said), judged; over the engine's socket.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import cycle, islice
from pathlib import Path

import anyio

from benchmarks.row import Row
from targon.engines import Engine, GenerateTask, start_engine_process
from targon.protocol import (
    Block,
    ChatMessage,
    Completion,
    GenerateRequest,
    Hotkey,
    Sampling,
    request_run_key,
)
from targon.verification.divergence import check_divergence, divergence_verdict

SHAPES = ((32, 256), (128, 128), (512, 128))
"""Tokens of prompt and completion."""
BATCH = 8
TARGETS = {("bfloat16", 32, 1): 40, ("bfloat16", 32, BATCH): 15}
"""How many times dearer generating has to be: dtype, tokens of the prompt, how many at once."""
NEURON = Hotkey("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
PASSAGE = (
    "The harbour lay quiet under a low grey sky while the boats came home one by one, and the keeper of the "
    "light, who had counted them out, began to count them in."
)
ASK = " Write a long, long story of the sea."

Answered = tuple[GenerateRequest, Completion]


def run(quick: bool) -> list[Row]:
    return anyio.run(_measure, quick)


async def _measure(quick: bool) -> list[Row]:
    rows = []
    for dtype in ("bfloat16", "float32"):
        with tempfile.TemporaryDirectory(prefix="targon-bench-") as folder:
            async with start_engine_process(Path(folder) / "engine.sock", dtype=dtype) as engine:
                await verify_all(
                    engine, [await answer(engine, 32, 8, 0)]
                )  # compiles the sampler and its replay
                for prompt, tokens in SHAPES[: 1 if quick else None]:
                    rows += await rows_of(engine, dtype, prompt, tokens)
    return rows


async def rows_of(engine: Engine, dtype: str, prompt: int, tokens: int) -> list[Row]:
    """The figures of one shape on one engine, alone and together."""
    rows = []
    for together in (1, BATCH):
        began = time.perf_counter()
        answered = await _answers(engine, prompt, tokens, together)
        generating = time.perf_counter() - began
        # other sizes of the same computation are compiled when they come up first; the second time counts
        verifying = min([await verify_all(engine, answered) for _ in range(4)])
        name = f"{dtype}, {prompt} + {tokens} tokens, {'alone' if together == 1 else f'{together} at once'}"
        target = TARGETS.get((dtype, prompt, together))
        rows.append(
            Row(
                f"generating against verifying, {name}",
                generating / verifying,
                "times",
                f">= {target} times" if target else "",
                f"{generating:.2f} s against {verifying * 1000:.0f} ms, T = 0.8, top-p 1",
            )
        )
        if together == 1:
            cut = [await answer(engine, prompt, tokens, 0, top_p=0.95)]
            verifying = min([await verify_all(engine, cut) for _ in range(4)])
            note = "as above, but for top-p"
            rows.append(Row(f"a verdict, {name}, top-p 0.95", verifying * 1000, "ms", "", note))
    return rows


async def verify_all(engine: Engine, answered: Sequence[Answered]) -> float:
    """Seconds for the verdicts on some answers, asked for at once."""

    async def verify(request: GenerateRequest, completion: Completion) -> None:
        divergence = await check_divergence(request, completion, engine)
        verdict = divergence_verdict(divergence, similarity_threshold=0.95, margin_tolerance=0.5)
        if verdict.outcome != "pass":
            raise RuntimeError(f"an honest answer: got {verdict}, expected a pass")

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for request, completion in answered:
            tasks.start_soon(verify, request, completion)
    return time.perf_counter() - began


async def _answers(engine: Engine, prompt: int, tokens: int, count: int) -> list[Answered]:
    answered: list[Answered] = []

    async def ask(number: int) -> None:
        answered.append(await answer(engine, prompt, tokens, number))

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(ask, number)
    return answered


async def answer(engine: Engine, prompt: int, tokens: int, number: int, top_p: float = 1.0) -> Answered:
    """A request for so many tokens, and the engine's answer."""
    request = await _request(engine, prompt, tokens, number, top_p)
    task = GenerateTask(request.messages, request.sampling, request_run_key(request))
    async with aclosing(engine.generate(task)) as steps:
        ids = [step.token_id async for step in steps]
    completion = Completion(
        salt="0" * 64, request_digest=request.digest(), token_ids=tuple(ids), finish_reason="length", text=""
    )
    return request, completion


async def _request(engine: Engine, prompt: int, tokens: int, number: int, top_p: float) -> GenerateRequest:
    sampling = {"seed": f"{number:016x}", "max_tokens": tokens, "temperature": 0.8, "top_p": top_p}
    return GenerateRequest(
        salt="0" * 64,
        genesis="0" * 64,
        netuid=1,
        verifier=NEURON,
        prover=NEURON,
        attempt=f"{number:016x}",
        block=Block(1),
        block_hash="0" * 64,
        log_head="0" * 64,
        model=engine.identity.name,
        messages=await _messages(engine, prompt),
        sampling=Sampling.from_json(sampling),
    )


async def _messages(engine: Engine, prompt: int) -> tuple[ChatMessage, ...]:
    """A prompt of so many tokens, or a few more, that makes for a long answer."""
    words = 0
    while True:
        content = " ".join(islice(cycle(PASSAGE.split()), words)) + ASK
        messages = (
            ChatMessage(role="system", content="You tell."),
            ChatMessage(role="user", content=content),
        )
        missing = prompt - len(await engine.prompt_token_ids(messages))
        if missing <= 0:
            return messages
        words += max(1, missing // 2)
