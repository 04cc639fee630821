"""An answer whose form is wrong fails, and the reason says what was got and what was expected."""

from __future__ import annotations

import pytest
from bittensor.keyfiles import Keypair

from targon.engines import EngineUnavailable
from targon.verification import check_structure
from targon.verification.structure import check_form

pytestmark = pytest.mark.anyio

EOS = 2


async def test_an_honest_answer_has_nothing_wrong_with_its_form(make_request, answer, engine):
    request = make_request()
    assert await check_structure(request, answer(request), engine) is None


async def test_an_answer_may_end_early_with_an_end_of_sequence_token(make_request, answer, engine):
    request = make_request()
    assert await check_structure(request, answer(request, (10, EOS), "stop"), engine) is None


@pytest.mark.parametrize(
    ("tokens", "finish_reason", "said"),
    [
        ((), "length", "got no tokens, expected at least one"),
        ((10, 11, 12, 13, 14), "length", "got 5 tokens, expected at most 4"),
        ((10, 36, 12, 13), "length", "got token id 36, expected ids below the vocabulary's 36"),
        ((10, EOS, 12, 13), "length", "end-of-sequence token at position 1 of 4"),
        ((10, 11), "stop", "got finish reason 'stop' with no end-of-sequence token"),
        ((10, 11, 12, EOS), "length", "got finish reason 'length' with an end-of-sequence token"),
        ((10, 11), "length", "got finish reason 'length' after 2 tokens, expected 4"),
        ((10, 11), "stop_string", "no stop string was set"),
    ],
)
async def test_a_wrong_form_fails_with_its_reason(make_request, answer, engine, tokens, finish_reason, said):
    request = make_request()
    verdict = await check_structure(request, answer(request, tokens, finish_reason), engine)
    assert verdict is not None
    assert (verdict.outcome, verdict.method, verdict.score) == ("fail", "structure", 0.0)
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("tokens", "finish_reason", "said"),
    [
        ((10, 11), "stop_string", None),
        ((10, 12, 13, 14), "length", None),
        ((10, 12, EOS), "stop", None),
        ((10, 11, 12, 13), "length", "runs on after one of the stop strings"),
        ((10, 11, EOS), "stop", "runs on after one of the stop strings"),
        ((12, 13), "stop_string", "doesn't hold a stop string"),
        ((12, 13, 10, 11), "length", "holds a stop string"),
    ],
)
async def test_stop_strings_end_an_answer_exactly_where_they_are_complete(
    make_request, answer, engine, tokens, finish_reason, said
):
    request = make_request(stop=("ab",))
    verdict = await check_structure(request, answer(request, tokens, finish_reason), engine)
    assert (verdict is None) if said is None else (verdict is not None and said in verdict.reason)


@pytest.mark.parametrize(
    ("logprobs", "said"),
    [
        ((-0.1, -0.2, -0.3, 0.0), None),
        ((-0.1,), "got 1 log-probabilities for 4 tokens"),
        ((-0.1, 0.5, -0.1, -0.1), "got log-probability 0.5"),
    ],
)
async def test_log_probabilities_are_one_per_token_and_never_positive(
    make_request, answer, engine, logprobs, said
):
    request = make_request()
    verdict = await check_structure(request, answer(request, logprobs=logprobs), engine)
    assert (verdict is None) if said is None else (verdict is not None and said in verdict.reason)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("abcd", None),
        ("abcx", "from character 3 on: got 4 characters in all, expected 4"),
        ("", "got 0 characters in all, expected"),
    ],
)
async def test_a_text_is_what_the_token_ids_say(make_request, answer, engine, text, said):
    request = make_request()
    verdict = await check_structure(request, answer(request, text=text), engine)
    assert (verdict is None) if said is None else (verdict is not None and said in verdict.reason)


async def test_a_text_is_not_held_against_anybody_when_the_tokenizer_s_engine_is_not_well(
    make_request, answer, engine
):
    async def not_well() -> None:
        raise EngineUnavailable("it runs another model now")

    request = make_request()
    engine.check = not_well
    assert await check_structure(request, answer(request), engine) is None
    with pytest.raises(EngineUnavailable):
        await check_structure(request, answer(request, text="wrong"), engine)


async def test_a_form_is_checked_without_an_engine_as_far_as_that_goes(make_request, answer):
    request = make_request()
    assert check_form(request, answer(request, text="wrong")) is None
    for wrong in (answer(request, ()), answer(request, (10, 11)), answer(request, logprobs=(1.0,) * 4)):
        verdict = check_form(request, wrong)
        assert verdict is not None
        assert verdict.outcome == "fail"


async def test_a_receipt_signed_by_somebody_else_fails(make_request, answer, engine):
    request = make_request()
    verdict = await check_structure(
        request, answer(request, signer=Keypair.create_from_uri("//Mallory")), engine
    )
    assert verdict is not None
    assert "receipt refused" in verdict.reason


async def test_an_answer_to_another_request_fails(make_request, answer, engine):
    request = make_request()
    other = answer(make_request(max_tokens=5))
    verdict = await check_structure(request, other, engine)
    assert verdict is not None
    assert "request_digest" in verdict.reason


async def test_a_completion_that_names_another_request_fails_even_with_a_right_receipt(
    make_request, answer, engine
):
    request = make_request()
    verdict = await check_structure(request, answer(request, request_digest="0" * 64), engine)
    assert verdict is not None
    assert "names another request" in verdict.reason
