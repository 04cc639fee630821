"""Requests to the tiny engine, answers of a length, and a reference whose findings are spoilt."""

from __future__ import annotations

from collections.abc import Sequence

from targon.engines import GenerateTask, Replayed, ReplayTask
from targon.protocol.draws import request_run_key
from targon.protocol.messages import ChatMessage, Completion, GenerateRequest, Sampling
from targon.verification.divergence import Divergence, divergence_verdict
from targon.verification.verdict import Verdict
from tests.tiny_engine import EOS, TinyEngine

LONG = 64


def asking(make_request, content: str = "Say the letters.", **sampling: object) -> GenerateRequest:
    parameters = {"seed": "00" * 8, "temperature": 0.8, "max_tokens": LONG, **sampling}
    return make_request().model_copy(
        update={
            "model": "tiny",
            "messages": (ChatMessage(role="user", content=content),),
            "sampling": Sampling.from_json(parameters),
        }
    )


def completed(request: GenerateRequest, ids: Sequence[int]) -> Completion:
    return Completion.model_construct(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(ids),
        finish_reason="stop" if ids and ids[-1] == EOS else "length",
        text="",
        logprobs=None,
    )


async def honest_ids(request: GenerateRequest, *, wrong: bool = False) -> tuple[int, ...]:
    task = GenerateTask(request.messages, request.sampling, request_run_key(request))
    return tuple([step.token_id async for step in TinyEngine(wrong=wrong).generate(task)])


async def long_answer(make_request, *, wrong: bool = False, **sampling: object):
    """A request whose answer has many tokens and no end, and the answer."""
    for number in range(1000):
        request = asking(make_request, f"number {number}", **sampling)
        ids = await honest_ids(request, wrong=wrong)
        if len(ids) == request.sampling.max_tokens and ids[-1] != EOS:
            return request, ids
    raise AssertionError("no prompt has a long answer")


def verdict_of(divergence: Divergence, threshold: float = 0.95, tolerance: float = 0.1) -> Verdict:
    return divergence_verdict(divergence, similarity_threshold=threshold, margin_tolerance=tolerance)


class Spoilt(TinyEngine):
    """Replays, and changes what it found."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self.spoil = spoil

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        return self.spoil(await super().replay(tasks))
