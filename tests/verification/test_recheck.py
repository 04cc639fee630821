"""Native work is judged by its log-probabilities: whose they are, and whether the tokens were drawn by them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targon.engines import EngineUnavailable, GenerateTask, Scores, ScoreTask, Step, TaskRefused
from targon.protocol.messages import ChatMessage, Completion, GenerateRequest, Sampling
from targon.verification import recheck
from targon.verification.recheck import FEWER, LOG_FAIL, weigh_draws
from targon.verification.verdict import Verdict
from tests.tiny_engine import VOCABULARY, TinyEngine
from tests.tiny_engine import _logits as logits_of

pytestmark = pytest.mark.anyio

LENGTH = 100


class NativeEngine(TinyEngine):
    """The tiny engine with a sampler of its own, and scores.

    Args:
        model: another text here is another model.
        noise: how much its logits are off, as those of another number format are.
        heat: what it multiplies the temperature by.
    """

    def __init__(self, model: str = "", *, noise: float = 0.0, heat: float = 1.0, seed: int = 1) -> None:
        super().__init__()
        self.model, self.noise, self.heat = model, noise, heat
        self.rng = np.random.default_rng(seed)
        self.change: Any = lambda results: results
        self.scored = 0

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        ids: list[int] = []
        temperature = task.sampling.temperature * self.heat
        for _ in range(task.sampling.max_tokens):
            logprobs = self.logprobs(task.messages[0].content, ids)
            noise = self.rng.gumbel(size=VOCABULARY) * temperature
            keep = np.ones(VOCABULARY, np.bool_)
            if task.sampling.top_p < 1.0:
                order = np.argsort(-logprobs)
                shares = np.exp(logprobs[order] / temperature)
                keep[
                    order[np.cumsum(shares) / shares.sum() - shares / shares.sum() >= task.sampling.top_p]
                ] = 0
            if task.sampling.top_k:
                keep[np.argsort(-logprobs)[task.sampling.top_k :]] = False
            keep[0] = False  # no end
            token = int(np.argmax(np.where(keep, logprobs + noise, -np.inf)))
            ids.append(token)
            yield Step(token, "", float(logprobs[token]))

    def logprobs(self, prompt: str, ids: Sequence[int]) -> np.ndarray:
        logits = logits_of(self.model + prompt, list(ids)).astype(np.float64) * 1.5
        logits[0] = -30.0
        logits += self.rng.normal(size=VOCABULARY) * self.noise
        return logits - np.logaddexp.reduce(logits)

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        await anyio.sleep(self.pause_s)
        await self.check()
        self.scored += 1
        return self.change([self._score(task) for task in tasks])

    def _score(self, task: ScoreTask) -> Scores:
        ids = task.token_ids
        table = np.stack(
            [self.logprobs(task.messages[0].content, ids[:place]) for place in range(len(ids))]
        ).astype(np.float32)
        own = table[np.arange(len(ids)), list(ids)]
        order = np.argsort(-table, axis=1, kind="stable")[:, : task.top_k]
        return Scores(
            top_ids=order.astype(np.int32),
            top_logprobs=np.take_along_axis(table, order, axis=1),
            claimed_logprobs=own,
            claimed_ranks=(table > own[:, None]).sum(axis=1, dtype=np.int32),
            prompt_tokens=3,
        )


def asking(make_request, number: int = 0, **sampling: Any) -> GenerateRequest:
    parameters = {
        "dialect": "native",
        "seed": "00" * 8,
        "temperature": 1.0,
        "max_tokens": LENGTH,
        **sampling,
    }
    return make_request().model_copy(
        update={
            "model": "tiny",
            "messages": (ChatMessage(role="user", content=f"number {number}"),),
            "sampling": Sampling.from_json(parameters),
        }
    )


def stating(request: GenerateRequest, ids: Sequence[int], logprobs: Sequence[float] | None) -> Completion:
    return Completion.model_construct(
        salt="05" * 32,
        request_digest=request.digest(),
        token_ids=tuple(ids),
        finish_reason="length",
        text="",
        logprobs=None if logprobs is None else tuple(map(float, logprobs)),
    )


async def generated(request: GenerateRequest, engine: NativeEngine) -> Completion:
    steps = [step async for step in engine.generate(GenerateTask(request.messages, request.sampling, 0))]
    return stating(request, [step.token_id for step in steps], [step.logprob for step in steps])


async def spoofed(request: GenerateRequest, writer: NativeEngine) -> Completion:
    """The writer's tokens, with what one prefill of the right model says of them."""
    ids = (await generated(request, writer)).token_ids
    (scores,) = await NativeEngine().score([ScoreTask(request.messages, ids, 1)])
    return stating(request, ids, scores.claimed_logprobs)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 1.3},
        {"top_p": 0.8},
        {"top_k": 5},
        {"temperature": 0.0},
    ],
)
async def test_an_honest_engine_passes_whatever_it_was_asked_for(make_request, sampling) -> None:
    for number in range(30):
        request = asking(make_request, number, **sampling)
        completion = await generated(request, NativeEngine(seed=number, noise=0.02))
        verdict = await recheck(request, completion, NativeEngine())
        assert (verdict.outcome, verdict.method, verdict.tokens) == ("pass", "recheck", LENGTH), (
            verdict.reason
        )
        assert verdict.score == 1.0
        assert verdict.evidence["mean_difference"] < 0.05


async def test_a_reference_that_lists_few_tokens_is_asked_for_few(make_request) -> None:
    class Listing(NativeEngine):
        async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
            if any(task.top_k > FEWER for task in tasks):
                raise TaskRefused(f"top_k: expected at most {FEWER}")
            return await super().score(tasks)

    request = asking(make_request)
    completion = await generated(request, NativeEngine(noise=0.02))
    assert (await recheck(request, completion, Listing())).outcome == "pass"


async def test_another_model_fails_by_its_own_log_probabilities(make_request) -> None:
    request = asking(make_request)
    verdict = await recheck(request, await generated(request, NativeEngine("small")), NativeEngine())
    assert verdict.outcome == "fail"
    assert "not this model's" in verdict.reason


async def test_another_model_fails_by_its_tokens_where_it_states_the_right_model_s_log_probabilities(
    make_request,
) -> None:
    request = asking(make_request)
    verdict = await recheck(request, await spoofed(request, NativeEngine("small")), NativeEngine())
    assert verdict.outcome == "fail"
    assert "the log-probabilities are this model's, but the tokens were not drawn by them" in verdict.reason
    assert "more surprising" in verdict.reason
    assert verdict.evidence["mean_difference"] == 0.0
    assert verdict.evidence["ln_e"] >= LOG_FAIL


async def test_text_that_is_likelier_than_draws_would_be_fails_too(make_request) -> None:
    request = asking(make_request)
    verdict = await recheck(request, await spoofed(request, NativeEngine(heat=0.2)), NativeEngine())
    assert verdict.outcome == "fail"
    assert "less surprising" in verdict.reason


async def test_a_top_p_that_was_ignored_shows_in_the_draws(make_request) -> None:
    request = asking(make_request, top_p=0.5)
    ignored = asking(make_request)
    completion = await generated(ignored, NativeEngine())
    assert (await recheck(request, completion, NativeEngine())).outcome == "fail"
    assert (await recheck(ignored, completion, NativeEngine())).outcome == "pass"


@pytest.mark.parametrize(
    ("shift", "places", "outcome"),
    [(0.1, LENGTH, "pass"), (0.2, LENGTH, "fail"), (0.9, 5, "pass"), (1.1, 1, "fail")],
)
async def test_log_probabilities_may_be_off_by_rounding_and_no_more(
    make_request, shift, places, outcome
) -> None:
    request = asking(make_request)
    completion = await generated(request, NativeEngine())
    shifted = [value - shift * (place < places) for place, value in enumerate(completion.logprobs or ())]
    verdict = await recheck(request, stating(request, completion.token_ids, shifted), NativeEngine())
    assert verdict.outcome == outcome


async def test_at_temperature_0_every_token_is_the_likeliest(make_request) -> None:
    request = asking(make_request, temperature=0.0)
    warm = await generated(asking(make_request), NativeEngine())
    verdict = await recheck(request, warm, NativeEngine())
    assert verdict.outcome == "fail"
    assert "not the most likely one" in verdict.reason
    assert verdict.evidence["cold"] > 10


async def test_an_honest_answer_wins_the_bets_no_more_often_than_promised(make_request) -> None:
    """The mean of e over honest answers is at most 1."""
    values = []
    for number in range(150):
        request = asking(make_request, number, max_tokens=20)
        completion = await generated(request, NativeEngine(seed=number))
        (scores,) = await NativeEngine().score(
            [ScoreTask(request.messages, completion.token_ids, VOCABULARY)]
        )
        draws = weigh_draws(scores, np.array(completion.token_ids), request.sampling, VOCABULARY)
        assert draws.counted == 20
        values.append(draws.log_e)
    assert max(values) < LOG_FAIL
    assert np.exp(np.minimum(values, 3.0)).mean() < 1.5


async def test_a_position_that_the_list_cannot_tell_is_left_out_whatever_is_claimed_there(
    make_request,
) -> None:
    request = asking(make_request, temperature=3.0, max_tokens=20)
    completion = await generated(request, NativeEngine())
    (scores,) = await NativeEngine().score([ScoreTask(request.messages, completion.token_ids, 3)])
    assert weigh_draws(scores, np.array(completion.token_ids), request.sampling, VOCABULARY).counted == 0
    short = NativeEngine()
    short.change = lambda _: [scores]
    verdict = await recheck(request, completion, short)
    assert verdict.outcome == "inconclusive"
    assert "at no position" in verdict.reason


async def test_a_list_that_is_short_still_tells_who_drew(make_request) -> None:
    request = asking(make_request)
    for completion, outcome in (
        (await generated(request, NativeEngine()), "pass"),
        (await spoofed(request, NativeEngine("small")), "fail"),
    ):
        (scores,) = await NativeEngine().score([ScoreTask(request.messages, completion.token_ids, 6)])
        engine = NativeEngine()
        engine.change = lambda _, scores=scores: [scores]
        assert (await recheck(request, completion, engine)).outcome == outcome


# -- nothing to recheck, and a form that is wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("logprobs", "outcome", "said"),
    [
        (None, "inconclusive", "got no log-probabilities"),
        ([-1.0] * (LENGTH - 1), "fail", "got 99 log-probabilities for 100 tokens"),
        ([-1.0] * 99 + [float("nan")], "fail", "got log-probability nan"),
        ([-1.0] * 99 + [float("-inf")], "fail", "got log-probability -inf"),
        ([-1.0] * 99 + [0.5], "fail", "got log-probability 0.5"),
    ],
)
async def test_log_probabilities_that_are_none_are_named(make_request, logprobs, outcome, said) -> None:
    request = asking(make_request)
    verdict = await recheck(request, stating(request, [1] * LENGTH, logprobs), NativeEngine())
    assert verdict.outcome == outcome
    assert said in verdict.reason


@pytest.mark.parametrize("ids", [[], [1] * (LENGTH + 1), [VOCABULARY], [-1]])
async def test_tokens_that_can_be_no_answer_fail_without_asking(make_request, ids) -> None:
    request, engine = asking(make_request), NativeEngine()
    verdict = await recheck(request, stating(request, ids, [-1.0] * len(ids)), engine)
    assert (verdict.outcome, engine.scored) == ("fail", 0)


async def test_work_that_can_be_replayed_is_not_rechecked(make_request) -> None:
    request = asking(make_request, dialect="targon/1")
    verdict = await recheck(request, stating(request, [1], [-1.0]), NativeEngine())
    assert verdict.outcome == "inconclusive"
    assert "expected native" in verdict.reason


# -- a reference engine that is broken ----------------------------------------------------------------------


async def test_a_reference_of_another_model_decides_nothing(make_request) -> None:
    request = asking(make_request)
    completion = await generated(request, NativeEngine())
    verdict = await recheck(request, completion, NativeEngine(), model_digest="e" * 64)
    assert verdict.outcome == "inconclusive"
    assert "another model" in verdict.reason
    other = request.model_copy(update={"model": "another"})
    verdict = await recheck(other, completion, NativeEngine())
    assert "got model tiny, expected another" in verdict.reason


async def test_a_reference_that_is_slow_or_down_decides_nothing(make_request) -> None:
    request = asking(make_request)
    completion = await generated(request, NativeEngine())
    engine = NativeEngine()
    engine.pause_s = 60.0
    slow = await recheck(request, completion, engine, deadline_s=0.01)
    engine = NativeEngine()
    engine.down = True
    down = await recheck(request, completion, engine)
    assert (slow.outcome, down.outcome) == ("inconclusive", "inconclusive")
    assert "no answer within 0.01 s" in slow.reason
    with pytest.raises(EngineUnavailable):
        await engine.score([])


IMPOSSIBLE: dict[str, tuple[float, ...]] = {
    "top_ids": (-1, VOCABULARY),
    "top_logprobs": (np.nan, np.inf, 1.0),
    "claimed_logprobs": (np.nan, np.inf, 0.1, -40.0),
    "claimed_ranks": (-1, VOCABULARY),
}


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_scores_with_an_impossible_number_or_shape_decide_nothing(make_request, data) -> None:
    request = asking(make_request, max_tokens=8)
    completion = anyio.run(generated, request, NativeEngine())
    (scores,) = anyio.run(
        NativeEngine().score, [ScoreTask(request.messages, completion.token_ids, VOCABULARY)]
    )
    field = data.draw(st.sampled_from(sorted(IMPOSSIBLE)))
    values = np.array(getattr(scores, field))
    how = data.draw(st.sampled_from(["number", "shorter", "kind", "none"]))
    if how == "number":
        values[data.draw(st.integers(0, 7))] = data.draw(st.sampled_from(IMPOSSIBLE[field]))
    other = {"number": values, "shorter": values[:-1], "kind": values.astype(str), "none": None}[how]
    verdict = anyio.run(judged, request, completion, [replace(scores, **{field: other})])
    assert verdict.outcome == "inconclusive", verdict.reason


@pytest.mark.parametrize("count", [0, 2])
async def test_scores_of_another_number_of_answers_decide_nothing(make_request, count) -> None:
    request = asking(make_request, max_tokens=8)
    completion = await generated(request, NativeEngine())
    scores = await NativeEngine().score([ScoreTask(request.messages, completion.token_ids, VOCABULARY)])
    verdict = await judged(request, completion, scores * count)
    assert verdict.outcome == "inconclusive"
    assert f"in part: got {count} answers" in verdict.reason


async def judged(request: GenerateRequest, completion: Completion, results: list[Scores]) -> Verdict:
    engine = NativeEngine()
    engine.change = lambda _: results
    return await recheck(request, completion, engine)
