"""The conformance suite of the engine port on llama.cpp's real server: what it can do of it."""

from __future__ import annotations

import pytest

from targon.engines import Engine, TaskRefused
from targon.engines.remote import RemoteEngine
from tests.engines.tasks import answer, claim, ids_of, task
from tests.engines.test_engine_conformance import (  # noqa: F401 - the suite
    test_a_prompt_ends_where_the_assistant_begins,
    test_a_stop_string_that_spans_tokens_ends_the_answer_before_it,
    test_an_answer_ends_at_the_end_of_sequence_token,
    test_nothing_to_score_is_answered_with_nothing,
    test_only_the_last_step_says_why_the_answer_ended,
    test_text_beyond_ascii_comes_in_whole_characters,
    test_token_ids_carry_any_text_there_and_back,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(llama: RemoteEngine) -> Engine:
    return llama


async def test_it_says_what_it_runs_and_offers_no_protocol_sampler(llama: RemoteEngine) -> None:
    await llama.check()
    assert llama.identity.engine.startswith("llama.cpp")
    assert llama.identity.dialects == ("greedy", "native")
    assert llama.identity.max_batch == 4
    with pytest.raises(TaskRefused, match="dialect"):
        await answer(llama, task())


async def test_its_greedy_tokens_are_the_reference_s_up_to_rounding(
    llama: RemoteEngine, reference: Engine
) -> None:
    asked = task(temperature=0.0, dialect="greedy", max_tokens=48)
    steps = await answer(llama, asked)
    (scores,) = await reference.score([claim(asked, steps, top_k=2)])
    lead = scores.top_logprobs[:, 0] - scores.claimed_logprobs
    assert lead.max() < 0.1
    assert abs(scores.claimed_logprobs - [step.logprob for step in steps]).mean() < 0.01


async def test_it_can_t_score_and_says_so(llama: RemoteEngine) -> None:
    asked = task(temperature=0.0, dialect="greedy", max_tokens=4)
    steps = await answer(llama, asked)
    with pytest.raises(TaskRefused, match="at most 0"):
        await llama.score([claim(asked, steps, top_k=5)])


async def test_native_work_is_served(llama: RemoteEngine) -> None:
    steps = await answer(llama, task(dialect="native", temperature=1.0, top_p=0.9, max_tokens=8))
    assert len(ids_of(steps)) <= 8
