"""Every method in its order, cheapest first: what a verifier makes of one answer.

1. Structure: is it a whole, signed, well-formed answer to what was asked?
2. Divergence: one prefill and the sampler replayed, by the calibration's margin and the tier's similarity.
   Of ``native`` work, which can't be replayed, a recheck of its log-probabilities; it needs no calibration, leaves
   no evidence, and its reason says that it earns nothing.
3. Similarity of sentence embeddings, against an answer that the reference generates, where nothing else decides and
   nothing hangs on it: ``native`` work whose log-probabilities were not given or tell nothing, and work that is not
   counted. It leaves no evidence.

For work that counts nothing is ever generated. Beside the verdict stands what the evidence takes in: of every answer
that could be replayed, whatever the verdict, for an honest prover's perfect answers belong to the evidence as much as
its worst ones. A counted answer that no calibration covers is ``inconclusive``: there is no guessing about the honest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from targon.engines import Borrowed, Engine, EngineError
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.protocol.primitives import Digest
from targon.verification.calibration import Band, Calibration, NoBand
from targon.verification.deadline import within
from targon.verification.divergence import METHOD, judge_divergence
from targon.verification.observations import Observations
from targon.verification.recheck import recheck
from targon.verification.similarity import Embedder, judge_similarity
from targon.verification.structure import check_structure
from targon.verification.verdict import Verdict, inconclusive, reason_about


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and what the evidence takes in."""

    verdict: Verdict
    observations: Observations | None = None
    """None: the answer leaves no evidence."""
    band: Band | None = None
    """The bounds for it; None where there are no observations."""


async def judge(
    request: GenerateRequest,
    response: GenerateResponse,
    engine: Engine,
    *,
    calibration: Calibration | None,
    similarity_threshold: float,
    deadline_s: float | None = None,
    embedder: Embedder | None = None,
    counted: bool = True,
) -> Judgement:
    """Judge an answer. Never raises what an engine may raise: our own trouble is no prover's fault.

    Args:
        engine: the reference engine.
        calibration: for the request's model on this engine; None: there is none.
        similarity_threshold: of the prover's tier, in [0, 1].
        deadline_s: how long the engine may take for one question; None: as long as it takes.
        embedder: for similarity; None: there is none, and what it would decide is inconclusive.
        counted: whether the work counts, as its attempt says (``native`` work never does). What isn't counted leaves
            no evidence, and is judged by similarity where it would be inconclusive.
    """
    counted = counted and request.sampling.dialect != "native"
    judgement = await _judge_counted(request, response, engine, calibration, similarity_threshold, deadline_s)
    if isinstance(engine, Borrowed):
        judgement = replace(judgement, verdict=_by_borrowed(judgement.verdict, engine))
    if counted:
        return judgement
    found = judgement.verdict
    if found.outcome == "inconclusive":
        other = await judge_similarity(
            request,
            response.completion,
            engine,
            embedder,
            similarity_threshold=similarity_threshold,
            model_digest=_model_digest(calibration),
            deadline_s=deadline_s,
        )
        found = replace(other, reason=f"{found.reason}; {other.reason}")
    return Judgement(_said(request, found))


async def _judge_counted(
    request: GenerateRequest,
    response: GenerateResponse,
    engine: Engine,
    calibration: Calibration | None,
    similarity_threshold: float,
    deadline_s: float | None,
) -> Judgement:
    """What the methods say that generate nothing."""
    model_digest = _model_digest(calibration)
    try:
        failure = await check_structure(request, response, engine, deadline_s=deadline_s)
        if failure is not None:
            return Judgement(failure)
        if request.sampling.dialect == "native":
            completion = response.completion
            return Judgement(
                await recheck(request, completion, engine, model_digest=model_digest, deadline_s=deadline_s)
            )
        prompt = await within(deadline_s, lambda: engine.prompt_token_ids(request.messages))
    except EngineError as error:
        return Judgement(inconclusive("structure", f"our reference engine could not decide: {error}"))
    replays = _replays(calibration)
    expected = _band(calibration, request, len(prompt), replays)
    if isinstance(expected, NoBand):
        return Judgement(inconclusive(METHOD, expected.reason))
    verdict, divergence = await judge_divergence(
        request,
        response.completion,
        engine,
        similarity_threshold=similarity_threshold,
        margin_tolerance=expected.margin,
        model_digest=model_digest,
        deadline_s=deadline_s,
    )
    if divergence.replayed is None or verdict.outcome == "inconclusive":
        return Judgement(verdict)
    seen = "list" if divergence.replayed.top_k else "whole"
    band = expected if seen == replays else _band(calibration, request, len(prompt), seen)
    if isinstance(band, NoBand):
        return Judgement(inconclusive(METHOD, band.reason, **verdict.evidence))
    return Judgement(verdict, Observations.of(divergence.replay, request.sampling.temperature), band)


def _by_borrowed(verdict: Verdict, engine: Borrowed) -> Verdict:
    """A verdict whose evidence says that the reference was borrowed, and how many had to agree: ``borrowed``."""
    told = f"{engine.agreeing} of {len(engine.lent_by)}"
    return replace(verdict, evidence=verdict.evidence | {"borrowed": told})


def _said(request: GenerateRequest, verdict: Verdict) -> Verdict:
    """A verdict whose reason says so where the work is native."""
    return replace(verdict, reason=reason_about(request.sampling.dialect, verdict.reason))


def _model_digest(calibration: Calibration | None) -> Digest | None:
    return None if calibration is None else Digest(calibration.model_digest)


def _replays(calibration: Calibration | None) -> str:
    """What kind of replay a calibration's reference makes."""
    kinds = {band.scope.replay for band in calibration.bands} if calibration is not None else {"whole"}
    return "whole" if "whole" in kinds else "list"


def _band(
    calibration: Calibration | None, request: GenerateRequest, prompt_tokens: int, replay: str
) -> Band | NoBand:
    if calibration is None:
        return NoBand(
            f"no calibration says how far honest engines differ from our reference for model {request.model}: "
            "make one (targon calibrate)"
        )
    return calibration.band_for(request.sampling, prompt_tokens=prompt_tokens, replay=replay)
