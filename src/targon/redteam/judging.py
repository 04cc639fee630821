"""Every method's opinion of one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from targon.engines import Engine, ModelIdentity, Replayed
from targon.protocol.tiers import TIERS, Tier
from targon.redteam.forgeries import Forge, Keys, exchange
from targon.verification import (
    Bets,
    Calibration,
    Divergence,
    NoBand,
    Observations,
    Verdict,
    bets_of,
    check_structure,
    divergence_verdict,
    exact_verdict,
)
from targon.verification.transcripts import Transcript

STRUCTURE: Final = "structure"
EXACT: Final = "exact"
SURPRISAL: Final = "surprisal"
EVIDENCE: Final = "evidence"
DIVERGENCE: Final = {tier: f"divergence {tier.label}" for tier in Tier}
"""The method at each tier's threshold."""

METHODS: Final = (STRUCTURE, EXACT, *DIVERGENCE.values(), SURPRISAL, EVIDENCE)


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer, seen by all methods that look at one answer alone."""

    tokens: int
    temperature: float
    failed: Mapping[str, bool]
    """By method: structure, exact, and divergence at each tier. Inconclusive is no failure."""
    surprisal: float
    """Mean of −ln p of its tokens, p at temperature 1."""
    agreement: float
    margin: float
    """Mean of its margins, as the sampler has them, where the draw doesn't hang on where a cut falls."""
    evidence: tuple[Observations, Bets] | None
    """None where there is none to be had of it: its structure was wrong, or no calibration covers it."""


async def judge_answers(
    transcripts: Sequence[Transcript],
    replays: Sequence[Replayed],
    reference: Engine,
    calibration: Calibration,
    keys: Keys,
    forge: Forge | None = None,
) -> list[Judged]:
    """Judge answers, each as if it had come over the wire.

    Args:
        replays: what the reference says of each.
        reference: for its vocabulary and tokenizer.
        forge: what is done to each signed answer on its way; None: nothing.

    Raises:
        EngineError: as the reference does.
    """
    judged = []
    for transcript, replayed in zip(transcripts, replays, strict=True):
        broken = await _check_structure(transcript, reference, keys, forge)
        judged.append(judge_replay(transcript, replayed, reference.identity, calibration, broken))
    return judged


async def _check_structure(
    transcript: Transcript, reference: Engine, keys: Keys, forge: Forge | None
) -> Verdict | None:
    honest = await exchange(transcript, reference, keys)
    response = honest.response if forge is None else forge(honest, keys)
    return await check_structure(honest.request, response, reference)


def judge_replay(
    transcript: Transcript,
    replayed: Replayed,
    identity: ModelIdentity,
    calibration: Calibration,
    broken: Verdict | None = None,
) -> Judged:
    """What the methods say that go by a replay.

    Args:
        broken: why the answer's form is wrong; then nothing else of it counts.
    """
    sampling = transcript.sampling
    divergence = Divergence(
        token_ids=np.array(transcript.token_ids, np.int64),
        replayed=replayed,
        eos_ids=identity.eos_ids,
        temperature=sampling.temperature,
    )
    band = calibration.band_for(
        sampling, prompt_tokens=replayed.prompt_tokens, replay="list" if replayed.top_k else "whole"
    )
    failed = {STRUCTURE: broken is not None, EXACT: exact_verdict(divergence).outcome == "fail"}
    for tier, method in DIVERGENCE.items():
        failed[method] = not isinstance(band, NoBand) and (
            divergence_verdict(
                divergence,
                similarity_threshold=TIERS[tier].similarity_threshold,
                margin_tolerance=band.margin,
            ).outcome
            == "fail"
        )
    replay = replayed.replay
    sure = ~(replay.unsure | replay.on_cut)
    return Judged(
        tokens=len(transcript.token_ids),
        temperature=sampling.temperature,
        failed=failed,
        surprisal=divergence.surprisal,
        agreement=divergence.agreement,
        margin=float(replay.margins[sure].mean()) if sure.any() else 0.0,
        evidence=None
        if broken is not None or isinstance(band, NoBand)
        else (Observations.of(replay, sampling.temperature), bets_of(band)),
    )
