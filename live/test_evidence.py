"""Evidence from a real vLLM as the reference, under the calibration that comes with the software.

Requests are cut to the 20 most likely tokens: those a list decides. Uncut ones convict, too, but take far longer.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from targon.engines import Engine, connect_engine
from targon.engines.remote import RemoteEngine
from targon.redteam import evaluation_passages
from targon.verification import find_calibration
from targon.verification.calibrating import Measured, Tried, try_out
from targon.verification.transcripts import Transcript
from targon.verification.workload import Mix, draw_tasks
from tests.engines.tasks import answer, ids_of

pytestmark = pytest.mark.anyio

ANSWERS = 10
CUT = Mix(
    temperatures=(0.8, 1.0), top_ps=(1.0,), top_ks=(20,), min_tokens=64, max_tokens=64, challenges_only=True
)


async def tried(prover: Engine, reference: RemoteEngine) -> Tried:
    """What becomes of the evidence about a prover after some answers."""
    asked = draw_tasks(evaluation_passages(), CUT, "evidence from lists", ANSWERS)
    answers: list[Transcript] = []

    async def ask(number: int) -> None:
        steps = await answer(prover, asked[number])
        reason = steps[-1].finish_reason
        assert reason is not None
        answers.append(Transcript.of(number, asked[number], ids_of(steps), reason))

    async with anyio.create_task_group() as group:
        for number in range(ANSWERS):
            group.start_soon(ask, number)
    replayed = await reference.replay([one.replay_task() for one in answers])
    measured = [Measured.of(*pair) for pair in zip(answers, replayed, strict=True)]
    return try_out(find_calibration(reference.identity), measured)


async def test_weights_in_four_bits_are_convicted(vllm: RemoteEngine, int4_socket: Path) -> None:
    async with connect_engine(int4_socket) as cheat:
        found = await tried(cheat, vllm)
    assert found.convicted_at is not None
    assert found.convicted_at < found.tokens


async def test_an_honest_engine_in_half_precision_is_not(vllm: RemoteEngine, bf16_socket: Path) -> None:
    async with connect_engine(bf16_socket) as honest:
        found = await tried(honest, vllm)
    assert (found.convicted_at, found.without_evidence) == (None, 0)
    assert found.largest_log_e < 2.0


async def test_another_vllm_in_half_precision_is_not(vllm: RemoteEngine, vllm_bf16: RemoteEngine) -> None:
    found = await tried(vllm_bf16, vllm)
    assert (found.convicted_at, found.without_evidence) == (None, 0)
    assert found.largest_log_e < 2.0
