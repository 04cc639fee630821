"""Work that can't be replayed is judged by what it means, against an answer of our own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from targon.engines import EngineUnavailable, GenerateTask, Step
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.verification import Calibration, Judgement, Range, judge, judge_similarity
from targon.verification.similarity import cosine, ground_truth, similarity
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
COLD_ONLY = CALIBRATION.model_copy(
    update={
        "bands": (
            band_with().model_copy(
                update={"scope": ALL.model_copy(update={"temperature": Range(low=0.0, high=0.1)})}
            ),
        )
    }
)


class Letters:
    """Texts mean the same that have the same letters: an embedder that needs no model.

    Attributes:
        answers: what it says instead, where that isn't None.
    """

    def __init__(self, *, down: bool = False, answers: NDArray[np.float32] | None = None) -> None:
        self.down = down
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(tuple(texts))
        if self.down:
            raise EngineUnavailable("the embedder is down")
        if self.answers is not None:
            return self.answers
        counts = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return (counts / np.maximum(1e-9, np.linalg.norm(counts, axis=1, keepdims=True))).astype(np.float32)


def judged_alone(first: str, second: str) -> float:
    return anyio.run(similarity, first, second, Letters())


async def judged(
    request: GenerateRequest,
    response: GenerateResponse,
    engine: TinyEngine,
    embedder: Letters | None,
    *,
    calibration: Calibration | None = CALIBRATION,
    counted: bool = True,
    threshold: float = 0.7,
) -> Judgement:
    return await judge(
        request,
        response,
        engine,
        calibration=calibration,
        similarity_threshold=threshold,
        embedder=embedder,
        counted=counted,
    )


async def saying(request: GenerateRequest, letter: str) -> GenerateResponse:
    """An answer of one letter, again and again."""
    honest = await honestly(request)
    ids = (ord(letter) - ord("a") + 1,) * request.sampling.max_tokens
    text = await TinyEngine().text(ids, ())
    said = honest.completion.model_copy(update={"token_ids": ids, "finish_reason": "length", "text": text})
    return signed(request, said)


# -- the measure -------------------------------------------------------------------------------------------

texts = st.text(alphabet="abcdef ", max_size=30)


@settings(max_examples=40)
@given(texts, texts)
def test_similarity_is_symmetric_and_lies_between_0_and_1(one, other):
    forth = judged_alone(one, other)
    assert 0.0 <= forth <= 1.0
    assert forth == pytest.approx(judged_alone(other, one), abs=1e-6)


@settings(max_examples=40)
@given(st.text(max_size=30))
def test_equal_texts_are_as_similar_as_can_be_without_asking(text):
    assert anyio.run(similarity, text, text, Letters(down=True)) == 1.0


@settings(max_examples=40)
@given(texts.filter(str.strip), st.sampled_from(["", " ", "\n\t"]))
def test_nothing_said_is_like_nothing_that_was_said(text, empty):
    assert anyio.run(similarity, text, empty, Letters(down=True)) == 0.0


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3).filter(
        lambda v: float(np.linalg.norm(v)) > 1
    )
)
def test_opposite_directions_count_as_0_and_lengths_for_nothing(values):
    vector = np.array(values, np.float32)
    assert cosine(vector, -vector) == 0.0
    assert cosine(vector, 3 * vector) == pytest.approx(1.0)
    assert cosine(vector, vector) <= 1.0


@pytest.mark.parametrize(
    "vectors",
    [
        ([1.0, 0.0], [1.0]),
        ([0.0, 0.0], [1.0, 0.0]),
        ([float("nan"), 0.0], [1.0, 0.0]),
        ([float("inf"), 0.0], [1.0, 0.0]),
        ([[1.0]], [[1.0]]),
    ],
)
def test_what_is_no_vector_with_a_direction_is_refused(vectors):
    one, other = (np.array(each, np.float32) for each in vectors)
    with pytest.raises(ValueError, match="expected"):
        cosine(one, other)


# -- the ground truth --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "temperature", "dialect", "used"),
    [
        (("greedy", "targon/1"), 0.8, "targon/1", 0.8),
        (("native", "greedy"), 0.8, "native", 0.8),
        (("greedy",), 0.8, "greedy", 0.0),
        (("targon/1", "greedy"), 0.0, "greedy", 0.0),
        (("targon/1",), 0.0, "targon/1", 0.0),
    ],
)
async def test_it_is_generated_in_the_best_dialect_that_the_reference_has(
    offered, temperature, dialect, used
):
    engine = TinyEngine(dialects=offered)
    request = tiny_request(dialect="native", temperature=temperature, stop=["q"], top_p=0.9)
    assert await ground_truth(request, engine)
    (task,) = engine.asked
    assert (task.sampling.dialect, task.sampling.temperature) == (dialect, used)
    assert (task.messages, task.sampling.stop) == (request.messages, ("q",))
    assert task.sampling.max_tokens == request.sampling.max_tokens


async def test_equal_requests_have_equal_ground_truths():
    request = tiny_request(dialect="native")
    assert await ground_truth(request, TinyEngine()) == await ground_truth(request, TinyEngine())


async def test_a_reference_that_samples_nothing_of_the_kind_finds_nothing():
    request = tiny_request(dialect="native", temperature=0.01)  # greedy would do, targon/1 begins at 0.05
    assert await ground_truth(request, TinyEngine(dialects=("targon/1",))) is None
    response = await honestly(tiny_request())
    verdict = await judge_similarity(
        request, response.completion, TinyEngine(dialects=("targon/1",)), Letters(), similarity_threshold=0.7
    )
    assert verdict.outcome == "inconclusive"
    assert "it samples targon/1, and none of it with what was asked for" in verdict.reason


# -- verdicts ----------------------------------------------------------------------------------------------


async def test_native_work_without_log_probabilities_is_judged_by_what_it_means():
    request = tiny_request(dialect="native")
    embedder = Letters()
    honest = await honestly(tiny_request())  # the very answer that the reference would give
    same = signed(request, honest.completion.model_copy(update={"request_digest": request.digest()}))
    passed = await judged(request, same, TinyEngine(), embedder)
    failed = await judged(request, await saying(request, "z"), TinyEngine(), embedder)
    assert [each.verdict.outcome for each in (passed, failed)] == ["pass", "fail"]
    for each in (passed, failed):
        assert each.verdict.method == "similarity"
        assert each.verdict.reason.startswith(f"{NATIVE}; got no log-probabilities")
        assert (each.observations, each.band) == (None, None)
    assert "expected at least 0.7" in failed.verdict.reason


async def test_the_tiers_threshold_decides():
    request = tiny_request(dialect="native")
    response = await saying(request, "e")
    text = await ground_truth(request, TinyEngine())
    assert text is not None
    score = await similarity(response.completion.text, text, Letters())
    assert 0.0 < score < 1.0
    found = [
        await judged(request, response, TinyEngine(), Letters(), threshold=threshold)
        for threshold in (score - 0.01, score + 0.01)
    ]
    assert [each.verdict.outcome for each in found] == ["pass", "fail"]
    assert [each.verdict.score for each in found] == [pytest.approx(score)] * 2


async def test_native_work_with_log_probabilities_is_rechecked_and_nothing_is_generated():
    request = tiny_request(dialect="native")
    honest = await honestly(tiny_request())
    steps = [step async for step in TinyEngine().generate(_task(request))]
    stated = honest.completion.model_copy(
        update={"request_digest": request.digest(), "logprobs": tuple(step.logprob for step in steps)}
    )
    engine, embedder = TinyEngine(), Letters()
    found = await judged(request, signed(request, stated), engine, embedder)
    assert (found.verdict.method, found.verdict.outcome) == ("recheck", "pass")
    assert (engine.asked, embedder.asked) == ([], [])


def _task(request: GenerateRequest) -> GenerateTask:
    from targon.protocol.draws import request_run_key

    sampling = tiny_request().sampling
    return GenerateTask(request.messages, sampling, request_run_key(request))


async def test_counted_work_is_never_judged_by_what_it_means():
    request = tiny_request(temperature=0.8)
    engine, embedder = TinyEngine(), Letters()
    found = await judged(request, await saying(request, "z"), engine, embedder, calibration=COLD_ONLY)
    assert (found.verdict.outcome, found.verdict.method) == ("inconclusive", "divergence")
    assert (engine.asked, embedder.asked) == ([], [])


async def test_work_beyond_what_is_calibrated_is_judged_by_what_it_means_and_leaves_no_evidence():
    request = tiny_request(temperature=0.8)
    found = [
        await judged(request, response, TinyEngine(), Letters(), calibration=COLD_ONLY, counted=False)
        for response in (await honestly(request), await saying(request, "z"))
    ]
    assert [each.verdict.outcome for each in found] == ["pass", "fail"]
    for each in found:
        assert each.verdict.method == "similarity"
        assert "temperature" in each.verdict.reason  # why nothing better could decide
        assert (each.observations, each.band) == (None, None)


async def test_uncounted_work_that_can_be_replayed_is_replayed_and_leaves_no_evidence():
    request = tiny_request()
    engine, embedder = TinyEngine(), Letters()
    found = await judged(request, await honestly(request), engine, embedder, counted=False)
    assert (found.verdict.outcome, found.verdict.method) == ("pass", "divergence")
    assert (found.observations, found.band) == (None, None)
    assert embedder.asked == []


async def test_an_answer_of_a_wrong_form_fails_before_it_is_read():
    request = tiny_request(dialect="native")
    response = await saying(request, "z")
    forged = signed(request, response.completion.model_copy(update={"token_ids": (), "text": ""}))
    embedder = Letters()
    found = await judged(request, forged, TinyEngine(), embedder)
    assert (found.verdict.outcome, found.verdict.method) == ("fail", "structure")
    assert embedder.asked == []


async def test_without_an_embedder_the_verdict_says_what_to_install():
    request = tiny_request(dialect="native")
    engine = TinyEngine()
    found = await judged(request, await saying(request, "z"), engine, None)
    assert found.verdict.outcome == "inconclusive"
    assert "install them with `pip install 'targon[engine]'`" in found.verdict.reason
    assert engine.asked == []


@pytest.mark.parametrize(
    "embedder",
    [
        Letters(down=True),
        Letters(answers=np.zeros((2, 3), np.float32)),
        Letters(answers=np.full((2, 3), np.nan, np.float32)),
        Letters(answers=np.ones((1, 3), np.float32)),
        Letters(answers=np.ones(2, np.float32)),
    ],
    ids=["down", "no direction", "no numbers", "too few", "no vectors"],
)
async def test_an_embedder_that_is_broken_charges_nobody(embedder):
    request = tiny_request(dialect="native")
    found = await judged(request, await saying(request, "z"), TinyEngine(), embedder)
    assert found.verdict.outcome == "inconclusive"
    assert "our sentence embeddings could not decide: " in found.verdict.reason


async def test_a_reference_that_cannot_generate_charges_nobody():
    class Scores(TinyEngine):
        async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
            raise EngineUnavailable("it only scores")
            yield  # type: ignore[unreachable]  # a generator, of nothing

    request = tiny_request(dialect="native")
    found = await judged(request, await saying(request, "z"), Scores(), Letters())
    assert found.verdict.outcome == "inconclusive"
    assert "could not generate a ground truth: it only scores" in found.verdict.reason


async def test_an_embedder_that_takes_too_long_charges_nobody():
    class Slow(Letters):
        async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            await anyio.sleep_forever()
            raise AssertionError

    request = tiny_request(dialect="native")
    response = await saying(request, "z")
    with anyio.fail_after(5):
        verdict = await judge_similarity(
            request, response.completion, TinyEngine(), Slow(), similarity_threshold=0.7, deadline_s=0.2
        )
    assert verdict.outcome == "inconclusive"
    assert "no answer within 0.2 s" in verdict.reason


@pytest.mark.parametrize("named", ["model", "digest"])
async def test_a_reference_of_another_model_finds_nothing(named):
    request = tiny_request(dialect="native")
    digest = "e" * 64 if named == "digest" else "d" * 64
    if named == "model":
        request = request.model_copy(update={"model": "another"})
    other = CALIBRATION.model_copy(update={"model_digest": digest})
    found = await judged(request, await saying(request, "z"), TinyEngine(), Letters(), calibration=other)
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reason.count("another model") == 2  # neither recheck nor similarity would begin
