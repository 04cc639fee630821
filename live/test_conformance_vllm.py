"""The conformance suite of the engine port on a real vLLM in float32, answers replayed on an engine of ours."""

from __future__ import annotations

import pytest

from targon.engines import Engine
from targon.engines.remote import RemoteEngine
from tests.engines.tasks import answer, claim, task
from tests.engines.test_engine_conformance import (  # noqa: F401 - the suite
    test_a_prompt_ends_where_the_assistant_begins,
    test_a_stop_string_that_spans_tokens_ends_the_answer_before_it,
    test_a_task_that_cannot_be_served_is_refused_by_name,
    test_an_answer_ends_at_the_end_of_sequence_token,
    test_an_answer_is_replayed_exactly_from_its_scores,
    test_answers_given_at_once_are_replayed_exactly_and_are_those_given_alone,
    test_at_temperature_0_every_token_is_the_most_likely_one,
    test_cancelling_who_waits_for_an_answer_frees_its_place_too,
    test_closing_an_answer_frees_its_place,
    test_completions_scored_together_score_as_they_do_alone,
    test_generating_and_scoring_go_on_together,
    test_more_requests_than_the_batch_holds_are_all_answered,
    test_nothing_to_score_is_answered_with_nothing,
    test_only_the_last_step_says_why_the_answer_ended,
    test_scores_that_cannot_be_had_are_refused_by_name,
    test_text_beyond_ascii_comes_in_whole_characters,
    test_token_ids_carry_any_text_there_and_back,
    test_top_k_and_top_p_are_replayed_exactly,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(vllm: RemoteEngine) -> Engine:
    return vllm


async def test_it_says_what_it_runs(vllm: RemoteEngine, reference: Engine) -> None:
    await vllm.check()
    got, expected = vllm.identity, reference.identity
    assert got.engine.startswith("vllm 0.")
    assert (got.name, got.model_digest, got.dtype) == (expected.name, expected.model_digest, "float32")
    assert (got.vocab_size, got.context_length, got.eos_ids) == (49_152, 8_192, (2,))
    assert got.dialects == ("targon/1", "greedy", "native")


async def test_its_lists_are_the_best_of_the_reference_s_whole_vocabulary(
    vllm: RemoteEngine, reference: Engine
) -> None:
    asked = task(max_tokens=24)
    steps = await answer(vllm, asked)
    (lists,) = await vllm.score([claim(asked, steps, top_k=20)])
    (whole,) = await reference.score([claim(asked, steps, top_k=20)])
    assert (lists.top_ids == whole.top_ids).mean() > 0.99  # near-equal neighbours may change places
    assert abs(lists.top_logprobs - whole.top_logprobs).max() < 1e-3
    assert abs(lists.claimed_logprobs - whole.claimed_logprobs).max() < 1e-3
    assert (lists.claimed_ranks == whole.claimed_ranks).all()


async def test_native_work_is_served(vllm: RemoteEngine) -> None:
    steps = await answer(vllm, task(dialect="native", temperature=1.0, top_p=0.9, max_tokens=8))
    assert 1 <= len(steps) <= 8
