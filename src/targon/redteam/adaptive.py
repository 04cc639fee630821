"""A prover that knows how it is judged, and repairs what would give it away.

It runs a cheap model, and holds the true one beside it. The seed is in the request, the calibration and the
e-process are public; so it can replay the sampler over its own answer as the verifier will, and find the tokens
that miss by more than honest rounding does. It puts the true token in the place of the first and goes on from
there. Each such check is a prefill on the true model, and each repair makes the rest of the answer again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np

from targon.engines import Engine, GenerateTask, ReplayTask, Step
from targon.protocol.primitives import TokenId
from targon.redteam.cheats import Wrapper
from targon.redteam.mixtures import continued, steps_of


class Repairing(Wrapper):
    """Answers with a cheap engine, after so many checks and repairs on the true one.

    Args:
        true: the engine that the prover claims to run; it scores here, and never generates.
        tolerance: a token may miss the true choice by this much.
        checks: the most prefills on the true engine for one answer.

    Attributes:
        answers, checked, repaired: how many answers were given, prefills of the true model made for them, and
            tokens put right.
    """

    def __init__(self, cheap: Engine, true: Engine, *, tolerance: float, checks: int) -> None:
        super().__init__(cheap)
        self._true = true
        self._tolerance = tolerance
        self._checks = checks
        self.answers = self.checked = self.repaired = 0

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        async with aclosing(self._engine.generate(task)) as steps:
            answer = [step async for step in steps]
        ids, finish = [step.token_id for step in answer], answer[-1].finish_reason
        self.answers += 1
        for _ in range(self._checks):
            (replayed,) = await self._true.replay(
                [ReplayTask(task.messages, tuple(ids), task.sampling, task.run_key)]
            )
            self.checked += 1
            bad = np.flatnonzero(replayed.replay.margins > self._tolerance)
            if not bad.size:
                break
            at = int(bad[0])
            true_token = TokenId(int(replayed.replay.best_ids[at]))
            self.repaired += 1
            if true_token in self.identity.eos_ids:
                ids, finish = [*ids[:at], true_token], "stop"
            elif at + 1 == task.sampling.max_tokens:
                ids, finish = [*ids[:at], true_token], "length"
            else:
                ids, finish = await continued(self._engine, task, [*ids[:at], true_token])
        for step in steps_of(ids, finish):
            yield step
