"""A reference that fails, runs another model, or finds what can't be: nothing is decided, and the reason says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from targon.engines import EngineBusy, Replayed, TaskRefused
from targon.verification.divergence import check_divergence
from tests.tiny_engine import VOCABULARY, TinyEngine
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
    ("known", "named"),
    [
        ({"model_digest": "e" * 64}, "got model digest dddd"),
        ({"vocab_size": VOCABULARY + 1}, f"got vocabulary {VOCABULARY}, expected {VOCABULARY + 1}"),
    ],
)
async def test_a_reference_that_runs_another_model_decides_nothing(make_request, known, named) -> None:
    request = asking(make_request)
    completion = completed(request, await honest_ids(request))
    right = {"model_digest": "d" * 64, "vocab_size": VOCABULARY}
    assert (await check_divergence(request, completion, TinyEngine(), **right)).settled is None
    verdict = verdict_of(await check_divergence(request, completion, TinyEngine(), **known))
    assert verdict.outcome == "inconclusive"
    assert named in verdict.reason


async def test_a_reference_that_runs_a_model_of_another_name_decides_nothing(make_request) -> None:
    request = asking(make_request).model_copy(update={"model": "huge"})
    verdict = verdict_of(await check_divergence(request, completed(request, (1, 2)), TinyEngine()))
    assert verdict.outcome == "inconclusive"
    assert "got model tiny, expected huge" in verdict.reason


@pytest.mark.parametrize("dialect", ["vllm", "native"])
async def test_a_sampler_that_cannot_be_replayed_decides_nothing(make_request, dialect) -> None:
    request = asking(make_request, dialect=dialect)
    verdict = verdict_of(await check_divergence(request, completed(request, (1, 2)), TinyEngine()))
    assert verdict.outcome == "inconclusive"
    assert dialect in verdict.reason


@pytest.mark.parametrize("error", [TaskRefused("too long"), EngineBusy("too much"), None])
async def test_a_reference_that_fails_decides_nothing(make_request, error) -> None:
    def spoil(_):
        raise error

    request = asking(make_request)
    engine = Spoilt(spoil) if error else TinyEngine(down=True)
    verdict = verdict_of(await check_divergence(request, completed(request, (1, 2)), engine))
    assert verdict.outcome == "inconclusive"
    assert (str(error) if error else "the tiny engine is down") in verdict.reason


def with_logprob(value: float):
    def spoil(results: list[Replayed]) -> list[Replayed]:
        results[0].claimed_logprobs[3] = value
        return results

    return spoil


def with_replay(name: str, value: float):
    def spoil(results: list[Replayed]) -> list[Replayed]:
        getattr(results[0].replay, name)[3] = value
        return results

    return spoil


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (with_logprob(np.nan), "log-probability nan at position 3"),
        (with_logprob(np.inf), "log-probability inf at position 3"),
        (with_logprob(-np.inf), "log-probability -inf at position 3"),
        (with_logprob(0.5), "log-probability 0.5"),
        (with_replay("margins", np.nan), "margin nan"),
        (with_replay("margins", -0.1), "margin -0.1"),
        (with_replay("margins", np.inf), "margin inf"),
        (with_replay("gaps", np.nan), "gap nan"),
        (with_replay("best_ids", -1), "best token -1"),
        (with_replay("best_ids", VOCABULARY), f"best token {VOCABULARY}"),
        (lambda results: [], "in part: got 0 answers"),
        (lambda results: results * 2, "in part: got 2 answers"),
        (
            lambda results: [replace(results[0], claimed_logprobs=results[0].claimed_logprobs[:-1])],
            "in part: got claimed_logprobs of shape",
        ),
        (
            lambda results: [
                replace(results[0], replay=replace(results[0].replay, margins=results[0].replay.margins[1:]))
            ],
            "in part: got margins of shape",
        ),
    ],
)
async def test_a_reference_that_answers_in_part_or_with_no_numbers_decides_nothing(
    make_request, spoil, named
) -> None:
    request, ids = await long_answer(make_request, max_tokens=8)
    divergence = await check_divergence(request, completed(request, ids), Spoilt(spoil))
    verdict = verdict_of(divergence, threshold=0.0)
    assert verdict.outcome == "inconclusive"
    assert named in verdict.reason
