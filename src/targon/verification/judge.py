"""Every method in its order, cheapest first."""

from __future__ import annotations

from contextlib import aclosing

from targon.engines import Engine, EngineError, GenerateTask
from targon.protocol.draws import request_run_key
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.verification.exact import GroundTruth, compare
from targon.verification.structure import check_structure
from targon.verification.verdict import Verdict, inconclusive


async def generate_ground_truth(request: GenerateRequest, engine: Engine) -> GroundTruth:
    """The verifier's own generation for a request: the dearest step of all.

    Raises:
        EngineError: if the engine could not do it.
    """
    task = GenerateTask(request.messages, request.sampling, request_run_key(request))
    async with aclosing(engine.generate(task)) as steps:
        generated = [step async for step in steps]
    reason = generated[-1].finish_reason if generated else None
    if reason is None:
        raise EngineError("the reference engine ended its answer without a finish reason")
    return GroundTruth(tuple(step.token_id for step in generated), reason)


async def judge(request: GenerateRequest, response: GenerateResponse, engine: Engine) -> Verdict:
    """Structure first, then equality with a ground truth.

    A reference engine that fails makes the verdict inconclusive: that is no prover's fault.
    """
    try:
        failure = await check_structure(request, response, engine)
        if failure is not None:
            return failure
        truth = await generate_ground_truth(request, engine)
    except EngineError as error:
        return inconclusive("reference", f"our reference engine could not decide: {error}")
    return compare(response.completion.token_ids, truth)
