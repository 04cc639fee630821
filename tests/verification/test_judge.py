"""Structure first, then equality with what the reference engine draws; our own trouble charges nobody."""

from __future__ import annotations

import pytest

from targon.verification import judge

pytestmark = pytest.mark.anyio


async def test_equal_tokens_pass(make_request, answer, engine):
    request = make_request()
    verdict = await judge(request, answer(request), engine)
    assert (verdict.outcome, verdict.method, verdict.score, verdict.tokens) == ("pass", "exact", 1.0, 4)


async def test_one_other_token_fails_and_the_evidence_says_where(make_request, answer, engine):
    request = make_request()
    verdict = await judge(request, answer(request, (10, 11, 20, 13)), engine)
    assert (verdict.outcome, verdict.method, verdict.score) == ("fail", "exact", 0.75)
    assert verdict.evidence == {
        "position": 2,
        "claimed": 20,
        "expected": 12,
        "margin": verdict.evidence["margin"],
        "mismatches": 1,
    }
    assert verdict.evidence["margin"] > 0
    assert "1 of 4 tokens are not what the reference engine draws" in verdict.reason
    assert "token 2: got 20, expected 12" in verdict.reason


async def test_an_answer_that_ends_where_the_model_would_not_fails(make_request, answer, engine):
    request = make_request()
    verdict = await judge(request, answer(request, (10, 11, 2), "stop"), engine)
    assert (verdict.outcome, verdict.evidence["position"], verdict.evidence["claimed"]) == ("fail", 2, 2)


async def test_an_answer_that_goes_on_where_the_model_would_end_fails(make_request, answer, engine):
    engine.answer = (10, 11)
    request = make_request()
    verdict = await judge(request, answer(request), engine)
    assert (verdict.outcome, verdict.evidence["position"], verdict.evidence["expected"]) == ("fail", 2, 2)


async def test_a_wrong_form_fails_before_the_engine_is_asked(make_request, answer, engine):
    request = make_request()
    engine.down = True
    verdict = await judge(request, answer(request, ()), engine)
    assert (verdict.outcome, verdict.method) == ("fail", "structure")


async def test_a_reference_engine_that_is_down_charges_nobody(make_request, answer, engine):
    request = make_request()
    engine.down = True
    verdict = await judge(request, answer(request), engine)
    assert verdict.outcome == "inconclusive"
    assert "the engine is down" in verdict.reason


async def test_a_tokenizer_that_is_down_charges_nobody(make_request, answer, engine):
    request = make_request(stop=("zz",))
    engine.down = True
    verdict = await judge(request, answer(request), engine)
    assert (verdict.outcome, verdict.method) == ("inconclusive", "structure")


async def test_a_reference_engine_of_another_model_charges_nobody(make_request, answer, engine):
    request = make_request().model_copy(update={"model": "digits"})
    verdict = await judge(request, answer(request), engine)
    assert verdict.outcome == "inconclusive"
    assert "another model" in verdict.reason
