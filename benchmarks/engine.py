"""The in-process engine, in a process of its own as roles use it: decoding alone and together, and scoring."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from benchmarks.row import Row
from targon.engines import Engine, GenerateTask, ScoreTask, Step, start_engine_process
from targon.protocol import ChatMessage, Sampling, TokenId

STREAMS = (1, 6, 8)
DTYPES = ("float32", "bfloat16")
PASSAGE = "The harbour lay quiet under a low grey sky while the boats came home one by one. "


def run(quick: bool) -> list[Row]:
    return anyio.run(_measure, 24 if quick else 96)


async def _measure(tokens: int) -> list[Row]:
    rows = []
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory(prefix="targon-bench-") as folder:
            began = time.perf_counter()
            async with start_engine_process(Path(folder) / "engine.sock", dtype=dtype) as engine:
                started = time.perf_counter() - began
                rows.append(Row(f"start, {dtype}", started, "s", "", "imports, model and first answer"))
                rows += await _rows(engine, dtype, tokens)
    return rows


async def _rows(engine: Engine, dtype: str, tokens: int) -> list[Row]:
    await _together(engine, [_task(0, 4)])  # compiles the sampler
    note = f"{tokens} tokens each, T = 0.8, {dtype}"
    rates: dict[int, float] = {}
    rows = []
    for streams in STREAMS:
        tasks = [_task(number, tokens) for number in range(streams)]
        answers, rates[streams] = await _together(engine, tasks)
        rows.append(Row(f"decode, {streams} together, {dtype}", rates[streams], "tokens/s", "", note))
    gain = rates[6] / rates[1]
    rows.append(Row(f"6 together against one, {dtype}", gain, "times", ">= 4 times", note))
    claims = [
        ScoreTask(task.messages, tuple(step.token_id for step in steps), 20)
        for task, steps in zip(tasks, answers, strict=True)
    ]
    seconds = await _score_seconds(engine, claims)
    scored = sum(len(claim.token_ids) for claim in claims)
    rows.append(
        Row(f"score, {dtype}", scored / seconds, "tokens/s", "", f"{len(claims)} completions at once, top 20")
    )
    for streams in (1, 8):
        times = scored / seconds / rates[streams]
        rows.append(Row(f"score against decoding {streams} together, {dtype}", times, "times", "", note))
    prompts = [ScoreTask(_messages(number, 8), (TokenId(260),), 1) for number in range(8)]
    seconds = await _score_seconds(engine, prompts)
    prefilled = sum([len(await engine.prompt_token_ids(prompt.messages)) for prompt in prompts])
    note = f"8 prompts of {prefilled // 8} tokens"
    rows.append(Row(f"prefill, {dtype}", prefilled / seconds, "tokens/s", "", note))
    return rows


async def _together(engine: Engine, tasks: Sequence[GenerateTask]) -> tuple[list[list[Step]], float]:
    """The answers to tasks asked at once, and tokens/s from when the last one began until the first ended."""
    answers: list[list[Step]] = [[] for _ in tasks]
    moments: list[list[float]] = [[] for _ in tasks]

    async def ask(number: int) -> None:
        async for step in engine.generate(tasks[number]):
            answers[number].append(step)
            moments[number].append(time.perf_counter())

    async with anyio.create_task_group() as group:
        for number in range(len(tasks)):
            group.start_soon(ask, number)
    begin, end = max(own[0] for own in moments), min(own[-1] for own in moments)
    inside = sum(begin < moment <= end for own in moments for moment in own)
    return answers, inside / (end - begin)


async def _score_seconds(engine: Engine, tasks: Sequence[ScoreTask]) -> float:
    began = time.perf_counter()
    await engine.score(tasks)
    return time.perf_counter() - began


def _task(number: int, tokens: int) -> GenerateTask:
    sampling = Sampling.from_json({"seed": "0" * 16, "max_tokens": tokens, "temperature": 0.8})
    return GenerateTask(_messages(number, 3), sampling, number)


def _messages(number: int, passages: int) -> tuple[ChatMessage, ...]:
    content = PASSAGE * passages + f"Write a very long story number {number} that begins here."
    return (ChatMessage(role="user", content=content),)
