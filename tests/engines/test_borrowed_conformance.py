"""What every adapter of the engine port does, of one that two oracles lend: all but what needs scores, or steps as
they come."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from targon.engines import Engine, ReplayTask
from targon.engines.transformers_engine import TransformersEngine
from targon.verification.agreement import apart
from targon.verifier.borrowed import borrow
from tests.verifier.lending import lent

from .tasks import answer, ids_of, task
from .test_engine_conformance import (  # noqa: F401 - collected here, for the engine below
    QUESTIONS,
    reference,
    test_a_prompt_ends_where_the_assistant_begins,
    test_a_sampler_of_its_own_is_none_that_it_has,
    test_a_stop_string_that_spans_tokens_ends_the_answer_before_it,
    test_an_answer_ends_at_the_end_of_sequence_token,
    test_an_answer_is_replayed_exactly_from_its_scores,
    test_nothing_to_score_is_answered_with_nothing,
    test_only_the_last_step_says_why_the_answer_ended,
    test_text_beyond_ascii_comes_in_whole_characters,
    test_token_ids_carry_any_text_there_and_back,
    test_top_k_and_top_p_are_replayed_exactly,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(fp32_engine: TransformersEngine) -> AsyncIterator[Engine]:
    async with lent(fp32_engine, fp32_engine, timeout_s=60.0) as lenders:
        yield await borrow(lenders, 2)


async def test_honest_engines_of_two_number_formats_agree_on_answers_honest_and_not(
    fp32_engine: TransformersEngine, bf16_engine: TransformersEngine
) -> None:
    asked = [task(question, max_tokens=32, run_key=place) for place, question in enumerate(QUESTIONS[:3])]
    honest = [ids_of(await answer(bf16_engine, one)) for one in asked]
    shuffled = [tuple(reversed(ids)) for ids in honest]
    for one, ids in zip(asked * 2, honest + shuffled, strict=True):
        claimed = ReplayTask(one.messages, ids, one.sampling, one.run_key)
        (exact,), (rounded,) = await fp32_engine.replay([claimed]), await bf16_engine.replay([claimed])
        assert apart(exact, rounded, one.sampling.temperature) is None
        other = ReplayTask(one.messages, ids, one.sampling, one.run_key + 99)
        (another,) = await fp32_engine.replay([other])
        assert apart(exact, another, one.sampling.temperature) is not None
