"""What a completion is worth to a reference engine that replays it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targon.engines import Replayed
from targon.protocol import MARGIN_CLIP
from targon.verification.divergence import check_divergence
from tests.tiny_engine import EOS, VOCABULARY, TinyEngine
from tests.verification.divergences import (
    Spoilt,
    asking,
    completed,
    honest_ids,
    long_answer,
    verdict_of,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.0}, {"top_p": 0.8}, {"top_k": 5}, {"dialect": "greedy", "temperature": 0.0}],
)
async def test_an_honest_answer_passes_with_full_similarity(make_request, sampling) -> None:
    for number in range(5):
        request = asking(make_request, f"question {number}", **sampling)
        ids = await honest_ids(request)
        divergence = await check_divergence(request, completed(request, ids), TinyEngine())
        verdict = verdict_of(divergence, threshold=1.0, tolerance=0.0)
        assert (verdict.outcome, verdict.score, verdict.tokens) == ("pass", 1.0, len(ids))
        assert verdict.reason == f"all {len(ids)} tokens are what the sampler draws"
        assert (divergence.agreement, divergence.mean_margin) == (1.0, 0.0)
        assert verdict.evidence["disagreed"] == []
        assert verdict.evidence["seen"] == "vocabulary"


async def test_another_seed_fails_and_the_verdict_says_where(make_request) -> None:
    request, ids = await long_answer(make_request, wrong=True, max_tokens=20)
    divergence = await check_divergence(request, completed(request, ids), TinyEngine())
    verdict = verdict_of(divergence)
    assert (verdict.outcome, verdict.method, verdict.tokens) == ("fail", "divergence", 20)
    assert verdict.score == divergence.similarity(0.1) < 0.5
    named = verdict.evidence["disagreed"]
    assert len(named) == 5
    for at in named:
        assert at["claimed"] == ids[at["position"]] != at["best"]
        assert at["margin"] > 0.1
        text = (
            f"at {at['position']} token {at['claimed']} instead of {at['best']} (margin {at['margin']:.2f})"
        )
        assert text in verdict.reason
    assert "expected at least 0.95" in verdict.reason


async def test_a_little_less_similarity_than_asked_for_fails(make_request) -> None:
    request, ids = await long_answer(make_request)
    changed = [*ids[:-1], ids[-1] % (VOCABULARY - 1) + 1]
    divergence = await check_divergence(request, completed(request, changed), TinyEngine())
    assert divergence.similarity(0.0) == 63 / 64
    assert verdict_of(divergence, threshold=63 / 64, tolerance=0.0).outcome == "pass"
    assert verdict_of(divergence, threshold=63 / 64 + 1e-9, tolerance=0.0).outcome == "fail"


async def test_a_token_that_misses_by_no_more_than_the_tolerance_counts_as_drawn(make_request) -> None:
    request, ids = await long_answer(make_request)
    changed = [*ids[:-1], ids[-1] % (VOCABULARY - 1) + 1]
    divergence = await check_divergence(request, completed(request, changed), TinyEngine())
    margin = float(divergence.replay.margins[-1]) * 0.8  # in logits
    verdict = verdict_of(divergence, threshold=1.0, tolerance=margin)
    assert (verdict.outcome, verdict.score) == ("pass", 1.0)
    assert "or miss it by at most" in verdict.reason
    assert verdict_of(divergence, threshold=1.0, tolerance=margin - 1e-9).outcome == "fail"


async def test_an_end_that_the_model_would_not_draw_fails_however_similar_the_rest_is(make_request) -> None:
    request, ids = await long_answer(make_request)
    divergence = await check_divergence(request, completed(request, [*ids[:40], EOS]), TinyEngine())
    verdict = verdict_of(divergence)
    assert divergence.similarity(0.1) == 40 / 41 > 0.95
    assert verdict.outcome == "fail"
    assert "the answer ends at position 40" in verdict.reason
    assert f"the model goes on with token {ids[40]}" in verdict.reason
    assert verdict.evidence["disagreed"][0]["claimed"] == EOS


@pytest.mark.parametrize(("margin", "outcome"), [(0.9, "pass"), (1.1, "fail")])
async def test_an_end_by_a_hair_fails_no_answer_that_is_similar_otherwise(
    make_request, margin: float, outcome: str
) -> None:
    """An honest engine may see a near-tie between the end and another token the other way round."""
    request, ids = await long_answer(make_request, temperature=1.0)
    divergence = await check_divergence(request, completed(request, [*ids[:40], EOS]), TinyEngine())
    margins = divergence.replay.margins.copy()
    margins[40] = margin
    assert divergence.replayed is not None
    tied = replace(divergence.replayed, replay=replace(divergence.replay, margins=margins))
    assert verdict_of(replace(divergence, replayed=tied)).outcome == outcome


async def test_an_answer_that_runs_on_where_the_model_ends_fails(make_request) -> None:
    for number in range(1000):
        request = asking(make_request, f"number {number}", temperature=1.3)
        ids = await honest_ids(request)
        if len(ids) > 20 and ids[-1] == EOS:
            break
    divergence = await check_divergence(request, completed(request, [*ids[:-1], 5]), TinyEngine())
    verdict = verdict_of(divergence)
    assert divergence.similarity(0.1) > 0.95
    assert verdict.outcome == "fail"
    assert f"goes on with token 5 at position {len(ids) - 1}" in verdict.reason
    assert "where the model ends it" in verdict.reason


async def test_a_token_that_was_no_candidate_has_the_largest_margin(make_request) -> None:
    request, ids = await long_answer(make_request, top_k=2)
    changed = list(ids)
    for token in range(1, VOCABULARY):
        changed[3] = token
        divergence = await check_divergence(request, completed(request, changed), TinyEngine())
        if not divergence.replay.among[3]:
            break
    assert divergence.replay.margins[3] == MARGIN_CLIP
    assert verdict_of(divergence, threshold=1.0).evidence["disagreed"][0]["margin"] == MARGIN_CLIP


async def test_surprisal_is_the_mean_over_the_claimed_tokens(make_request) -> None:
    request, ids = await long_answer(make_request)
    divergence = await check_divergence(request, completed(request, ids), TinyEngine())
    assert divergence.replayed is not None
    assert divergence.surprisal == pytest.approx(
        -float(divergence.replayed.claimed_logprobs.mean()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        ((), "got 0 tokens, expected 1 to 64"),
        ((1,) * 65, "got 65 tokens"),
        ((1, 2, VOCABULARY), f"got token id {VOCABULARY}, expected ids from 0 to {VOCABULARY - 1}"),
        ((1, -1), "got token id -1"),
    ],
)
async def test_what_can_be_no_answer_of_this_model_fails_without_asking(make_request, ids, named) -> None:
    request = asking(make_request)
    divergence = await check_divergence(request, completed(request, ids), TinyEngine(down=True))
    verdict = verdict_of(divergence)
    assert (verdict.outcome, verdict.tokens) == ("fail", len(ids))
    assert named in verdict.reason
    with pytest.raises(ValueError, match="nothing was replayed"):
        divergence.similarity(0.1)


async def test_a_token_of_probability_zero_is_the_provers_doing(make_request) -> None:
    def spoil(results: list[Replayed]) -> list[Replayed]:
        results[0].claimed_logprobs[3] = -np.inf
        results[0].replay.margins[3] = MARGIN_CLIP
        results[0].replay.among[3] = False
        results[0].replay.best_ids[3] = ids[3] % (VOCABULARY - 1) + 1
        return results

    request, ids = await long_answer(make_request, max_tokens=8)
    divergence = await check_divergence(request, completed(request, ids), Spoilt(spoil))
    assert verdict_of(divergence).outcome == "fail"
    assert np.isfinite(divergence.surprisal)


def on_cut(*places: int):
    def spoil(results: list[Replayed]) -> list[Replayed]:
        results[0].replay.on_cut[list(places)] = True
        return results

    return spoil


async def test_a_margin_is_measured_in_logits_because_rounding_is(make_request) -> None:
    request, ids = await long_answer(make_request, temperature=0.5)
    changed = [*ids[:-1], ids[-1] % (VOCABULARY - 1) + 1]
    divergence = await check_divergence(request, completed(request, changed), TinyEngine())
    margin = float(divergence.replay.margins[-1])
    assert 0.0 < margin < MARGIN_CLIP
    assert divergence.similarity(margin * 0.51) == 1.0
    assert divergence.similarity(margin * 0.49) == 63 / 64


async def test_no_temperature_makes_a_token_that_was_no_candidate_agree(make_request) -> None:
    request, ids = await long_answer(make_request, temperature=0.05, top_k=1)
    changed = [*ids[:-1], ids[-1] % (VOCABULARY - 1) + 1]
    divergence = await check_divergence(request, completed(request, changed), TinyEngine())
    assert divergence.replay.margins[-1] == MARGIN_CLIP
    assert divergence.apart(9.9).tolist() == [63]


async def test_a_draw_that_hangs_on_a_cut_counts_only_if_it_agrees(make_request) -> None:
    request, ids = await long_answer(make_request)
    changed = [*ids[:-1], ids[-1] % (VOCABULARY - 1) + 1]
    verdict = verdict_of(
        await check_divergence(request, completed(request, changed), Spoilt(on_cut(5, 63))),
        threshold=1.0,
        tolerance=0.0,
    )
    assert (verdict.outcome, verdict.score) == ("pass", 1.0)
    assert "63 of 64 tokens" in verdict.reason
    assert "; 1 hang on where a cut falls" in verdict.reason
    assert verdict.evidence["on_cut"] == 2


async def test_an_answer_of_which_nothing_counts_is_no_pass(make_request) -> None:
    request = asking(make_request, max_tokens=1)
    (right,) = await honest_ids(request)
    other = completed(request, [right % (VOCABULARY - 1) + 1])
    divergence = await check_divergence(request, other, Spoilt(on_cut(0)))
    assert divergence.similarity(0.0) == 0.0
    verdict = verdict_of(divergence, threshold=0.0, tolerance=0.0)
    assert verdict.outcome == "inconclusive"
    assert "hangs on where a cut falls" in verdict.reason


async def test_a_verdict_from_a_list_of_tokens_says_so(make_request) -> None:
    request, ids = await long_answer(make_request)
    engine = Spoilt(lambda results: [replace(results[0], top_k=20)])
    verdict = verdict_of(await check_divergence(request, completed(request, ids), engine))
    assert verdict.outcome == "pass"
    assert verdict.evidence["seen"] == 20
    assert "the 20 most likely tokens" in verdict.reason


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"tolerance": -0.1},
        {"tolerance": MARGIN_CLIP},
        {"tolerance": float("nan")},
    ],
)
async def test_a_threshold_that_is_none_is_refused(make_request, arguments) -> None:
    request = asking(make_request)
    divergence = await check_divergence(request, completed(request, (1, 2)), TinyEngine())
    with pytest.raises(ValueError, match="got"):
        verdict_of(divergence, **arguments)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.integers(-1, VOCABULARY), max_size=12),
    threshold=st.floats(0, 1),
    tolerance=st.floats(0, 9),
)
async def test_no_answer_crashes_it_and_more_tolerance_never_hurts(
    make_request, ids: list[int], threshold: float, tolerance: float
) -> None:
    request = asking(make_request)
    divergence = await check_divergence(request, completed(request, ids), TinyEngine())
    strict, lenient = verdict_of(divergence, threshold, tolerance), verdict_of(divergence, 0.0, 9.9)
    assert strict.outcome in ("pass", "fail")
    assert 0.0 <= strict.score <= lenient.score <= 1.0
    if strict.outcome == "pass":
        assert strict.score >= threshold
        assert strict.tokens == len(ids) > 0
