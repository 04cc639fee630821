"""Every method in its order, cheapest first."""

from __future__ import annotations

from targon.engines import Engine, EngineError
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.verification.divergence import check_divergence
from targon.verification.exact import exact_verdict
from targon.verification.structure import check_structure
from targon.verification.verdict import Verdict, inconclusive


async def judge(request: GenerateRequest, response: GenerateResponse, engine: Engine) -> Verdict:
    """Structure first, then equality with what the reference engine would have generated.

    A reference engine that fails makes the verdict inconclusive: that is no prover's fault.
    """
    try:
        failure = await check_structure(request, response, engine)
    except EngineError as error:
        return inconclusive("structure", f"our reference engine could not decide: {error}")
    if failure is not None:
        return failure
    return exact_verdict(await check_divergence(request, response.completion, engine))
