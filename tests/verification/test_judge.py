"""Structure first, then equality with a ground truth; our own trouble charges nobody."""

from __future__ import annotations

import pytest

from targon.verification import GroundTruth, compare, judge

pytestmark = pytest.mark.anyio


async def test_equal_tokens_pass(make_request, answer, engine):
    request = make_request()
    verdict = await judge(request, answer(request), engine)
    assert (verdict.outcome, verdict.method, verdict.score, verdict.tokens) == ("pass", "exact", 1.0, 4)


async def test_one_other_token_fails_and_the_evidence_says_where(make_request, answer, engine):
    request = make_request()
    verdict = await judge(request, answer(request, (10, 11, 20, 13)), engine)
    assert verdict.outcome == "fail"
    assert verdict.evidence == {"position": 2, "claimed": 20, "expected": 12, "agreed": 0.5}
    assert "token 2 of 4 differs from the ground truth: got 20, expected 12" in verdict.reason


async def test_a_wrong_form_fails_before_anything_is_generated(make_request, answer, engine):
    request = make_request()
    engine.down = True
    verdict = await judge(request, answer(request, ()), engine)
    assert (verdict.outcome, verdict.method) == ("fail", "structure")


async def test_a_reference_engine_that_is_down_charges_nobody(make_request, answer, engine):
    request = make_request()
    engine.down = True
    verdict = await judge(request, answer(request), engine)
    assert (verdict.outcome, verdict.method) == ("inconclusive", "reference")
    assert "the engine is down" in verdict.reason


async def test_a_reference_engine_that_breaks_off_charges_nobody(make_request, answer, engine):
    engine.answer = ()
    request = make_request()
    verdict = await judge(request, answer(request), engine)
    assert verdict.outcome == "inconclusive"


def test_an_answer_that_ends_too_early_differs_at_its_end():
    verdict = compare((10, 11), GroundTruth((10, 11, 12), "length"))
    assert verdict.evidence["position"] == 2
    assert "got the end, expected 12" in verdict.reason


def test_an_answer_that_runs_on_differs_after_the_truths_end():
    verdict = compare((10, 11, 2, 4), GroundTruth((10, 11, 2), "stop"))
    assert verdict.evidence == {"position": 3, "claimed": 4, "expected": None, "agreed": 1.0}
