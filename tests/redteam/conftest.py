"""Requests, and a bench whose engines are tiny."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targon.engines import Engine, GenerateTask, ModelIdentity, Replayed, ReplayTask
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.suspicions import NO_RIVALS
from targon.redteam import Attack, Bench
from targon.redteam.attacks import EngineSpec
from targon.redteam.forgeries import Keys, make_keys
from targon.verification import Calibration, HonestRun, Observations, Range, Scope, measure
from tests.tiny_engine import TinyEngine

PASSAGES = tuple(f"Passage {letter} tells of something else. It has two sentences." for letter in "abcdefgh")


def task_of(text: str = "a passage\n\nWhat is it?", *, key: int = 7, **sampling: object) -> GenerateTask:
    """A request; T 1 and 24 tokens, unless it says otherwise."""
    values = {"seed": "0" * 16, "temperature": 1.0, "max_tokens": 24, **sampling}
    messages = (ChatMessage(role="system", content="Be short."), ChatMessage(role="user", content=text))
    return GenerateTask(messages, Sampling(**values), key)


class Cheap(TinyEngine):
    """Draws other noise than was asked for, in generating and in going on."""

    def __init__(self) -> None:
        super().__init__(wrong=True)

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return await super().replay([replace(task, run_key=task.run_key ^ 1) for task in tasks])


class TinyBench(Bench):
    """Its engines need no model: those with a variant draw other noise, the others are honest. Answers are short."""

    def tasks(self, attack: Attack) -> list[GenerateTask]:
        return [
            replace(task, sampling=task.sampling.model_copy(update={"max_tokens": 8 + number % 7}))
            for number, task in enumerate(super().tasks(attack))
        ]

    @asynccontextmanager
    async def engine(self, spec: EngineSpec) -> AsyncGenerator[Engine, None]:
        yield TinyEngine() if spec.variant is None else Cheap()


def tiny_calibration(identity: ModelIdentity) -> Calibration:
    """As if 40,000 honest positions had been seen, with a mismatch now and then where the gap is small."""
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(400):
        gaps, masses = rng.exponential(1.0, 100), rng.uniform(0.05, 0.6, 100)
        seen.append(
            Observations(
                gaps=gaps,
                mismatched=(gaps < 0.2) & (rng.random(100) < 0.04),
                unsure=np.zeros(100, bool),
                tail_mass=masses,
                in_tail=rng.random(100) < masses,
                rivals=np.full(100, NO_RIVALS, np.uint32),
                claimed_rivals=np.zeros(100, np.uint8),
            )
        )
    scope = Scope(
        dialects=("targon/1", "greedy"),
        temperature=Range(low=0.0, high=1.2),
        top_p=Range(low=0.8, high=1.0),
        top_k=(0, 20, 40, 50),
        max_prompt_tokens=2_000,
        max_tokens=192,
    )
    return Calibration(
        model_digest=identity.model_digest,
        engine=identity.engine,
        dtype=identity.dtype,
        bands=(measure(scope, [HonestRun("tiny", seen)]),),
    )


@pytest.fixture(scope="session")
def keys() -> Keys:
    return make_keys()


@pytest.fixture
def bench(tmp_path: Path) -> TinyBench:
    return TinyBench(tmp_path / "kept", PASSAGES, completions=12)
