"""Structure first, then divergence within what is calibrated; our own trouble charges nobody."""

from __future__ import annotations

import anyio
import numpy as np
import pytest

from targon.engines import GenerateTask
from targon.protocol.draws import request_run_key
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.verification import Calibration, EvidenceState, Judgement, Range, advance, bets_of, judge
from targon.verification.calibration import load_calibration
from targon.verification.shipped import SHIPPED
from targon.verification.verdict import NATIVE
from tests.tiny_engine import TinyEngine
from tests.verification.answers import honestly, signed, tiny_request
from tests.verification.completions import SCOPE, band_with

pytestmark = pytest.mark.anyio

ALL = SCOPE.model_copy(update={"temperature": Range(low=0.0, high=2.0), "top_p": Range(low=0.1, high=1.0)})
CALIBRATION = Calibration(
    model_digest="d" * 64,
    engine="letters",
    dtype="float32",
    bands=(band_with().model_copy(update={"scope": ALL}),),
)


async def judged(request, response, engine, calibration=CALIBRATION, threshold=0.7, **more) -> Judgement:
    return await judge(
        request, response, engine, calibration=calibration, similarity_threshold=threshold, **more
    )


async def test_equal_tokens_pass_and_leave_evidence(make_request, answer, engine):
    request = make_request()
    found = await judged(request, answer(request), engine)
    assert (found.verdict.outcome, found.verdict.method, found.verdict.score) == ("pass", "divergence", 1.0)
    assert found.observations is not None
    assert not found.observations.mismatched.any()
    assert found.band == CALIBRATION.bands[0]


async def test_the_tiers_threshold_decides_and_either_way_there_is_evidence(make_request, answer, engine):
    request = make_request()
    response = answer(request, (10, 11, 20, 13))
    lenient, strict = [await judged(request, response, engine, threshold=t) for t in (0.7, 0.8)]
    assert (lenient.verdict.outcome, strict.verdict.outcome) == ("pass", "fail")
    assert "similarity 0.7500, expected at least 0.8" in strict.verdict.reason
    for found in (lenient, strict):
        assert found.observations is not None
        assert np.flatnonzero(found.observations.mismatched).tolist() == [2]


async def test_an_answer_that_ends_where_the_model_would_not_fails(make_request, answer, engine):
    request = make_request()
    found = await judged(request, answer(request, (10, 11, 2), "stop"), engine, threshold=0.5)
    assert found.verdict.outcome == "fail"
    assert "the answer ends at position 2" in found.verdict.reason


async def test_an_answer_that_goes_on_where_the_model_would_end_fails(make_request, answer, engine):
    engine.answer = (10, 11)
    request = make_request()
    found = await judged(request, answer(request), engine, threshold=0.1)
    assert found.verdict.outcome == "fail"
    assert "goes on with token 12 at position 2" in found.verdict.reason


async def test_a_wrong_form_fails_before_the_engine_is_asked_and_leaves_no_evidence(
    make_request, answer, engine
):
    request = make_request()
    engine.down = True
    found = await judged(request, answer(request, ()), engine)
    assert (found.verdict.outcome, found.verdict.method) == ("fail", "structure")
    assert (found.observations, found.band) == (None, None)


async def test_a_reference_engine_that_is_down_charges_nobody(make_request, answer, engine):
    request = make_request()
    engine.down = True
    found = await judged(request, answer(request), engine)
    assert found.verdict.outcome == "inconclusive"
    assert "the engine is down" in found.verdict.reason
    assert found.observations is None


async def test_a_tokenizer_that_is_down_charges_nobody(make_request, answer, engine):
    request = make_request(stop=("zz",))
    engine.down = True
    found = await judged(request, answer(request), engine)
    assert (found.verdict.outcome, found.verdict.method) == ("inconclusive", "structure")


async def test_a_reference_engine_of_another_model_charges_nobody(make_request, answer, engine):
    request = make_request().model_copy(update={"model": "digits"})
    found = await judged(request, answer(request), engine)
    assert found.verdict.outcome == "inconclusive"
    assert "another model" in found.verdict.reason


async def test_without_a_calibration_there_is_no_finding(make_request, answer, engine):
    request = make_request()
    for response in (answer(request), answer(request, (20, 21, 22, 23))):
        found = await judged(request, response, engine, calibration=None)
        assert found.verdict.outcome == "inconclusive"
        assert "make one (targon calibrate)" in found.verdict.reason
        assert found.observations is None


async def test_what_no_band_covers_is_no_finding_and_leaves_no_evidence(make_request, answer, engine):
    narrow = band_with().model_copy(
        update={"scope": ALL.model_copy(update={"temperature": Range(low=1.9, high=2.0)})}
    )
    request = make_request()
    calibration = CALIBRATION.model_copy(update={"bands": (narrow,)})
    found = await judged(request, answer(request, (20, 21, 22, 23)), engine, calibration)
    assert found.verdict.outcome == "inconclusive"
    assert "outside of what was calibrated: temperature" in found.verdict.reason
    assert found.observations is None


async def test_the_bounds_are_those_of_what_the_reference_could_see(make_request, answer, engine):
    """A replay from a list of the most likely tokens has bounds of its own, or none."""
    request = make_request()
    engine.seen = 5
    found = await judged(request, answer(request), engine)
    assert found.verdict.outcome == "inconclusive"
    assert "a replay from the list" in found.verdict.reason
    listed = band_with((0.9,) * 9).model_copy(update={"scope": ALL.model_copy(update={"replay": "list"})})
    both = CALIBRATION.model_copy(update={"bands": (*CALIBRATION.bands, listed)})
    found = await judged(request, answer(request), engine, both)
    assert (found.verdict.outcome, found.band) == ("pass", listed)


async def test_a_reference_that_reports_lists_needs_no_bounds_of_whole_replays(make_request, answer, engine):
    listed = band_with((0.9,) * 9).model_copy(update={"scope": ALL.model_copy(update={"replay": "list"})})
    alone = CALIBRATION.model_copy(update={"bands": (listed,)})
    request = make_request()
    engine.seen = 5
    found = await judged(request, answer(request), engine, alone)
    assert (found.verdict.outcome, found.band) == ("pass", listed)
    engine.seen = 0
    found = await judged(request, answer(request), engine, alone)
    assert found.verdict.outcome == "inconclusive"
    assert "a replay from the whole (calibrated: list)" in found.verdict.reason


async def test_a_reference_that_is_another_model_than_the_calibrations_charges_nobody(
    make_request, answer, engine
):
    request = make_request()
    other = CALIBRATION.model_copy(update={"model_digest": "e" * 64})
    found = await judged(request, answer(request, (20, 21, 22, 23)), engine, other)
    assert found.verdict.outcome == "inconclusive"
    assert "model" in found.verdict.reason
    assert found.observations is None


async def test_tokens_agree_within_the_calibrations_margin_and_no_further(make_request, answer, engine):
    engine.unlikely = -1.0  # so that margins aren't clipped
    request = make_request()
    response = answer(request, (20, 21, 22, 23))

    async def with_margin(margin: float) -> Judgement:
        band = CALIBRATION.bands[0].model_copy(update={"margin": margin})
        return await judged(request, response, engine, CALIBRATION.model_copy(update={"bands": (band,)}))

    strict = await with_margin(0.0)
    least = min(each["margin"] for each in strict.verdict.evidence["disagreed"])
    assert 0.1 < least < 3.0
    least *= request.sampling.temperature  # in logits
    assert [(await with_margin(least + more)).verdict.score for more in (-0.01, 0.01)] == [0.0, 0.25]


async def test_where_nothing_is_drawn_there_is_no_tail_to_count(make_request, answer, engine):
    request = make_request()
    greedy = request.sampling.model_copy(update={"temperature": 0.0})
    request = request.model_copy(update={"sampling": greedy})
    found = await judged(request, answer(request), engine)
    assert found.verdict.outcome == "pass"
    assert (found.verdict.evidence["tail_drawn"], found.verdict.evidence["tail_expected"]) == (0, 0.0)


async def test_a_prompt_longer_than_any_that_was_calibrated_leaves_no_evidence(make_request, answer, engine):
    engine.prompt = tuple(range(ALL.max_prompt_tokens + 1))
    request = make_request()
    found = await judged(request, answer(request), engine)
    assert found.verdict.outcome == "inconclusive"
    assert f"a prompt of {ALL.max_prompt_tokens + 1} tokens" in found.verdict.reason
    assert found.observations is None


@pytest.mark.parametrize("slow", ["prompt_token_ids", "text", "replay"])
async def test_a_reference_engine_that_is_too_slow_charges_nobody(make_request, answer, engine, slow):
    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    setattr(engine, slow, never)
    request = make_request()
    with anyio.fail_after(5):
        found = await judged(request, answer(request), engine, deadline_s=0.01)
    assert found.verdict.outcome == "inconclusive"
    assert "no answer within 0.01 s" in found.verdict.reason


# -- greedy work -------------------------------------------------------------------------------------------


async def greedy_evidence(calibration: Calibration, *, wrong: bool) -> tuple[set[str], EvidenceState]:
    """The outcomes of eight greedy answers, and what they are evidence of."""
    outcomes, state = set[str](), EvidenceState()
    for number in range(8):
        request = tiny_request(number, dialect="greedy", temperature=0.0)
        found = await judged(request, await honestly(request, wrong=wrong), TinyEngine(), calibration)
        assert found.verdict.method == "divergence"
        assert found.observations is not None
        assert found.band is not None
        outcomes.add(found.verdict.outcome)
        state = advance(state, found.observations, bets_of(found.band))
    return outcomes, state


async def test_greedy_work_is_judged_and_leaves_evidence_by_what_comes_with_the_software():
    shipped = load_calibration(min(SHIPPED.glob("*.json"))).model_copy(update={"model_digest": "d" * 64})
    honest, cheat = [await greedy_evidence(shipped, wrong=wrong) for wrong in (False, True)]
    assert (honest[0], honest[1].convicted_at) == ({"pass"}, None)
    assert cheat[0] == {"fail"}
    assert cheat[1].convicted_at is not None
    assert honest[1].completions == 8


# -- native work -------------------------------------------------------------------------------------------


async def natively(
    request: GenerateRequest, *, wrong: bool = False, logprobs: bool = True
) -> GenerateResponse:
    """An answer by the tiny engine's own noise, with log-probabilities or without."""
    task = GenerateTask(request.messages, request.sampling, request_run_key(request))
    steps = [step async for step in TinyEngine(wrong=wrong).generate(task)]
    response = await honestly(request, wrong=wrong)
    stated = tuple(step.logprob for step in steps) if logprobs else None
    return signed(request, response.completion.model_copy(update={"logprobs": stated}))


@pytest.mark.parametrize("calibration", [CALIBRATION, None])
@pytest.mark.parametrize(
    ("wrong", "logprobs", "outcome", "said"),
    [
        (False, True, "pass", "log-probabilities are this model's"),
        (True, True, "fail", "the log-probabilities are not this model's"),
        (
            False,
            False,
            "inconclusive",
            "got no log-probabilities: there is nothing to recheck; there are no sentence embeddings",
        ),
    ],
)
async def test_native_work_is_rechecked_says_that_it_earns_nothing_and_leaves_no_evidence(
    calibration, wrong, logprobs, outcome, said
):
    request = tiny_request(dialect="native")
    response = await natively(request, wrong=wrong, logprobs=logprobs)
    found = await judged(request, response, TinyEngine(), calibration)
    assert (found.verdict.outcome, found.verdict.method) == (outcome, "recheck" if logprobs else "similarity")
    assert found.verdict.reason.startswith(f"{NATIVE}; ")
    assert said in found.verdict.reason
    assert (found.observations, found.band) == (None, None)


async def test_native_work_of_a_wrong_form_fails_and_says_that_it_earns_nothing():
    request = tiny_request(dialect="native")
    response = await natively(request)
    cut = response.completion.model_copy(update={"token_ids": (), "logprobs": None})
    found = await judged(request, signed(request, cut), TinyEngine())
    assert (found.verdict.outcome, found.verdict.method) == ("fail", "structure")
    assert found.verdict.reason.startswith(NATIVE)


async def test_native_work_is_judged_by_a_reference_of_the_calibrated_model_or_not_at_all():
    request = tiny_request(dialect="native")
    other = CALIBRATION.model_copy(update={"model_digest": "e" * 64})
    found = await judged(request, await natively(request), TinyEngine(), other)
    assert found.verdict.outcome == "inconclusive"
    assert "another model" in found.verdict.reason


async def test_a_reference_that_is_down_or_slow_charges_no_native_work():
    request = tiny_request(dialect="native")
    response = await natively(request)

    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    slow = TinyEngine()
    slow.score = never  # type: ignore[assignment,method-assign]
    with anyio.fail_after(5):
        found = [
            await judged(request, response, engine, deadline_s=0.01)
            for engine in (TinyEngine(down=True), slow)
        ]
    assert [each.verdict.outcome for each in found] == ["inconclusive", "inconclusive"]
    assert all(each.verdict.reason.startswith(NATIVE) for each in found)


async def test_work_that_is_replayed_does_not_say_that_it_earns_nothing(make_request, answer, engine):
    request = make_request()
    for response in (answer(request), answer(request, ())):
        assert NATIVE not in (await judged(request, response, engine)).verdict.reason
