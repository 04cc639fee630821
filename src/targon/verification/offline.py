"""An answer on file, checked by anyone: form first, then the sampler replayed, then the evidence of all.

For each answer:

1. its form, without a model (:func:`targon.verification.structure.check_form`);
2. whether the engine at hand runs the very model that the receipt names, by digest: if not, nothing is known;
3. the rest of its form, with the model's vocabulary and tokenizer;
4. the sampler, replayed: an answer without a mismatch is what the model generates, and passes;
5. where there are mismatches, a calibration says how far honest engines differ. Without one, nothing is known.

Over all answers of one prover a calibration gives ln e as well: how much the answers speak against an honest
prover. It means what it says only if nobody picked the answers for their mismatches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from targon.engines import Engine, EngineError
from targon.protocol.primitives import Digest, Hotkey, TokenId
from targon.verification.answer_file import SignedAnswer
from targon.verification.bets import bets_of
from targon.verification.calibration import Band, Calibration, NoBand
from targon.verification.deadline import within
from targon.verification.divergence import Divergence, judge_divergence
from targon.verification.evidence import EvidenceState, advance
from targon.verification.observations import Observations
from targon.verification.recheck import recheck
from targon.verification.structure import check_form, check_structure
from targon.verification.verdict import Verdict, inconclusive

SIMILARITY: Final = 0.95
"""The least share of positions that must agree, where nothing else is said: what the highest tier asks for."""

UNCALIBRATED_MARGIN: Final = 0.5
"""Logits. Where no calibration says by how much an honest token misses the sampler's choice, those that miss it
by more are named; nothing is concluded from them."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One position where the prover claims another token than the sampler draws, in words."""

    position: int
    claimed: int
    claimed_text: str
    best: int
    best_text: str
    margin: float


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """What was found of one answer."""

    answer: SignedAnswer
    verdict: Verdict
    divergence: Divergence | None = None
    """None, or settled, where nothing was replayed."""
    band: Band | NoBand | None = None
    """What covers it; None: no calibration was at hand, or nothing was replayed."""
    disagreements: tuple[Disagreement, ...] = ()

    @property
    def replayed(self) -> bool:
        """Whether the model has seen it."""
        return self.divergence is not None and self.divergence.replayed is not None


def check_unaided(answer: SignedAnswer) -> CheckedAnswer:
    """Check what needs no engine: signature, digests, form. It can fail, and never passes."""
    failure = check_form(answer.request, answer.response)
    reason = "signature, digests and form are right; the tokens were not checked: there was no engine"
    return CheckedAnswer(answer, failure or inconclusive("structure", reason))


async def check_answer(
    answer: SignedAnswer,
    engine: Engine,
    calibration: Calibration | None = None,
    *,
    similarity_threshold: float = SIMILARITY,
    deadline_s: float | None = None,
) -> CheckedAnswer:
    """Check an answer with a reference engine. Never raises what an engine may raise.

    Args:
        engine: should run the model that the receipt names.
        calibration: for that model and this engine; None: an answer with mismatches can't be judged.
        similarity_threshold: the least share of positions that must agree, in [0, 1].
        deadline_s: how long the engine may take for one question; None: as long as it takes.
    """
    request, response = answer.request, answer.response
    failure = check_form(request, response)
    if failure is not None:
        return CheckedAnswer(answer, failure)
    model = Digest(response.receipt.body.model_digest)
    other = _other_model(engine, request.model, model)
    if other is not None:
        return CheckedAnswer(answer, other)
    try:
        failure = await check_structure(request, response, engine, deadline_s=deadline_s)
        if failure is not None:
            return CheckedAnswer(answer, failure)
        prompt = await within(deadline_s, lambda: engine.prompt_token_ids(request.messages))
    except EngineError as error:
        trouble = inconclusive("structure", f"our reference engine could not decide: {error}")
        return CheckedAnswer(answer, trouble)
    completion = response.completion
    if request.sampling.dialect == "native":
        return CheckedAnswer(
            answer, await recheck(request, completion, engine, model_digest=model, deadline_s=deadline_s)
        )
    band = _band(calibration, answer, len(prompt), "whole")
    verdict, divergence = await judge_divergence(
        request,
        completion,
        engine,
        similarity_threshold=similarity_threshold,
        margin_tolerance=band.margin if isinstance(band, Band) else UNCALIBRATED_MARGIN,
        model_digest=model,
        deadline_s=deadline_s,
    )
    if divergence.replayed is None:
        return CheckedAnswer(answer, verdict, divergence)
    if divergence.replayed.top_k:
        band = _band(calibration, answer, len(prompt), "list")
    if divergence.agreement < 1.0 and not isinstance(band, Band):
        why = "no calibration says how far honest engines differ here" if band is None else band.reason
        reason = f"{verdict.reason}; but that is no finding: {why}"
        verdict = inconclusive(verdict.method, reason, **verdict.evidence)
    named = await _in_words(verdict, engine, deadline_s)
    return CheckedAnswer(answer, verdict, divergence, band, named)


def evidence_of(checked: Iterable[CheckedAnswer]) -> dict[Hotkey, EvidenceState]:
    """The evidence about each prover, over its answers in their order. One that is given twice counts once."""
    states: dict[Hotkey, EvidenceState] = {}
    seen: set[Digest] = set()
    for one in checked:
        request, divergence = one.answer.request, one.divergence
        digest = request.digest()
        if (
            digest in seen
            or divergence is None
            or divergence.replayed is None
            or not isinstance(one.band, Band)
        ):
            continue
        seen.add(digest)
        observed = Observations.of(divergence.replay, request.sampling.temperature)
        state = states.get(request.prover, EvidenceState())
        states[request.prover] = advance(state, observed, bets_of(one.band))
    return states


def _other_model(engine: Engine, name: str, digest: Digest) -> Verdict | None:
    identity = engine.identity
    for what, got, expected in (
        ("model", identity.name, name),
        ("model digest", identity.model_digest, digest),
    ):
        if got != expected:
            return inconclusive(
                "structure",
                f"our reference engine runs another model than the receipt names: got {what} {got}, expected "
                f"{expected}",
            )
    return None


def _band(
    calibration: Calibration | None, answer: SignedAnswer, prompt_tokens: int, replay: str
) -> Band | NoBand | None:
    if calibration is None:
        return None
    return calibration.band_for(answer.request.sampling, prompt_tokens=prompt_tokens, replay=replay)


async def _in_words(verdict: Verdict, engine: Engine, deadline_s: float | None) -> tuple[Disagreement, ...]:
    """The positions that a verdict names, with the text of their tokens; without it if the engine can't say."""

    async def text(token: TokenId) -> str:
        if token in engine.identity.eos_ids:
            return "the end"
        try:
            return await within(deadline_s, lambda: engine.text((token,), ()))
        except EngineError:
            return ""

    return tuple(
        [
            Disagreement(
                position=at["position"],
                claimed=at["claimed"],
                claimed_text=await text(at["claimed"]),
                best=at["best"],
                best_text=await text(at["best"]),
                margin=at["margin"],
            )
            for at in verdict.evidence.get("disagreed", ())
        ]
    )
