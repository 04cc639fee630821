"""Tasks for engines, and what to do with their answers."""

from __future__ import annotations

from collections.abc import Sequence

from targon.engines import Engine, GenerateTask, Scores, ScoreTask, Step
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import TokenId, u64_hex
from targon.protocol.sampler import choose


def task(
    content: str = "Tell me about the sea and the wind.",
    *,
    temperature: float = 0.8,
    max_tokens: int = 16,
    stop: tuple[str, ...] = (),
    dialect: str = "targon/1",
    run_key: int = 12_345,
    **more: object,
) -> GenerateTask:
    sampling = {
        "dialect": dialect,
        "seed": u64_hex(7),
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stop": list(stop),
        **more,
    }
    messages = (ChatMessage(role="user", content=content),)
    return GenerateTask(messages, Sampling.from_json(sampling), run_key)


async def answer(engine: Engine, asked: GenerateTask) -> list[Step]:
    return [step async for step in engine.generate(asked)]


def ids_of(steps: Sequence[Step]) -> tuple[TokenId, ...]:
    return tuple(step.token_id for step in steps)


def text_of(steps: Sequence[Step]) -> str:
    return "".join(step.text for step in steps)


def claim(asked: GenerateTask, steps: Sequence[Step], top_k: int = 0) -> ScoreTask:
    return ScoreTask(asked.messages, ids_of(steps), top_k)


def replayed(asked: GenerateTask, scores: Scores) -> tuple[TokenId, ...]:
    """What the sampler draws from scores over the whole vocabulary."""
    return tuple(
        choose(logprobs, asked.sampling, asked.run_key, position)
        for position, logprobs in enumerate(scores.top_logprobs)
    )


def agreement(one: Sequence[TokenId], other: Sequence[TokenId]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
