"""What a margin can't see shows in the tokens' surprisal: a prover that stays within the tolerance everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from targon.protocol.draws import request_run_key
from targon.protocol.messages import Completion, GenerateRequest
from targon.protocol.sampler import gumbel
from targon.verification import Divergence, check_divergence, divergence_verdict
from tests.tiny_engine import EOS, VOCABULARY, TinyEngine
from tests.tiny_engine import _logits as logits_of
from tests.verification.answers import honestly, tiny_request

pytestmark = pytest.mark.anyio


async def test_a_prover_that_keeps_every_margin_below_the_tolerance_shows_in_its_unlikely_tokens() -> None:
    """It may choose freely among the tokens that miss the sampler's choice by a hair, and takes the likeliest."""
    drawn, expected, variance, similarities = 0, 0.0, 0.0, []
    for number in range(60):
        request = tiny_request(number, max_tokens=24)
        divergence = await hiding(request, tolerance=0.5)
        similarities.append(divergence.similarity(0.5))
        got, mean = divergence.tail
        masses = divergence.replay.tail_mass
        drawn, expected, variance = (
            drawn + got,
            expected + mean,
            variance + float((masses * (1 - masses)).sum()),
        )
        verdict = divergence_verdict(divergence, similarity_threshold=1.0, margin_tolerance=0.5)
        assert verdict.outcome == "pass"
        assert (verdict.evidence["tail_drawn"], verdict.evidence["tail_expected"]) == (got, mean)
        assert verdict.evidence["surprisal"] == divergence.surprisal
    assert set(similarities) == {1.0}
    assert (drawn - expected) / np.sqrt(variance) < -5.0


async def test_an_honest_prover_draws_as_many_unlikely_tokens_as_expected() -> None:
    drawn, expected, variance = 0, 0.0, 0.0
    for number in range(60):
        request = tiny_request(number, max_tokens=24)
        divergence = await check_divergence(request, (await honestly(request)).completion, TinyEngine())
        got, mean = divergence.tail
        masses = divergence.replay.tail_mass
        drawn, expected, variance = (
            drawn + got,
            expected + mean,
            variance + float((masses * (1 - masses)).sum()),
        )
    assert abs(drawn - expected) / np.sqrt(variance) < 4.0


async def hiding(request: GenerateRequest, tolerance: float) -> Divergence:
    """What a reference says of a prover that takes the likeliest token within a tolerance, everywhere."""
    run_key, temperature = request_run_key(request), request.sampling.temperature
    ids: list[int] = []
    while len(ids) < request.sampling.max_tokens and EOS not in ids:
        logits = logits_of(request.messages[0].content, ids).astype(np.float64)
        noisy = logits + temperature * gumbel(run_key, len(ids), 0, np.arange(VOCABULARY))
        ids.append(int(np.argmax(np.where(noisy >= noisy.max() - tolerance, logits, -np.inf))))
    completion = Completion.model_construct(
        salt="05" * 32,
        request_digest="",
        token_ids=tuple(ids),
        finish_reason="length",
        text="",
        logprobs=None,
    )
    return await check_divergence(request, completion, TinyEngine())
