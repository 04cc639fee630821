"""What SGLang's backend makes of scores of given tokens."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.remote.backend import PromptLogprobs

from .scripted_sglang import (
    DRAWN,
    PROMPT,
    answering,
    entries,
    generated,
    scored,
    scripted,
)

pytestmark = pytest.mark.anyio
LOWEST = -3.4028234663852886e38


async def scores(answer: Any, ids: tuple[int, ...] = (5, 6, 7), *, top: int = 2) -> PromptLogprobs:
    async with scripted(answer) as (backend, server):
        found = await backend.prompt_logprobs("m", ids, top)
    body = server.requests[0].body
    assert (body["input_ids"], body["logprob_start_len"], body["top_logprobs_num"]) == (list(ids), 0, top)
    assert found.answer == body["rid"]
    return found


async def test_given_tokens_are_scored_with_the_likelier_ones_and_their_ranks() -> None:
    found = await scores(scored([5, 6, 7]))
    assert found.token_ids.tolist() == [6, 7]
    assert found.logprobs.tolist() == pytest.approx([-0.06, -0.07])
    assert found.ranks.tolist() == [1, 1]
    assert found.top_ids.tolist() == [[50, 6], [50, 7]]
    assert found.top_logprobs[0].tolist() == pytest.approx([-0.001, -0.06])


async def test_a_token_that_is_not_listed_ranks_behind_the_list() -> None:
    found = await scores(scored([5, 6, 7], width=1), top=1)
    assert found.ranks.tolist() == [1, 1]
    assert found.top_ids.tolist() == [[50], [50]]


async def test_without_lists_there_are_none() -> None:
    found = await scores(scored([5, 6, 7], lists=[]), top=0)
    assert found.top_ids.shape == (2, 0)
    assert found.ranks.tolist() == [0, 0]


@pytest.mark.parametrize("lowest", [None, LOWEST])
async def test_minus_infinity_is_read_in_either_way_of_writing_it(lowest: float | None) -> None:
    own = [[None, 5, None], [lowest, 6, None]]
    lists = [None, [[-0.001, 50, None], [lowest, 51, None]]]
    found = await scores(scored([5, 6], own=own, lists=lists), (5, 6))
    assert found.logprobs.tolist() == [-math.inf]
    assert found.top_logprobs[0, 1] == -math.inf
    assert found.ranks.tolist() == [2]


async def test_the_last_id_of_the_vocabulary_is_known_though_it_is_written_as_0() -> None:
    own = [[None, 5, None], [-0.6, 0, None], [-0.2, 6, None]]
    found = await scores(scored([5, 60, 6], own=own), (5, 60, 6))
    assert found.token_ids.tolist() == [60, 6]
    assert found.ranks.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (scored([5, 6], prompt_token_ids=None), "got scores of 2 tokens, expected 3"),
        (scored([5, 6, 8], prompt_token_ids=[5, 6, 8]), "at position 2 got [8], expected [7]"),
        (scored([5, 6, 8], prompt_token_ids=None), "at position 2 got [8], expected [7]"),
        (scored([5, 6, 7], own=[[None, 5, None], [-1.0, 6, None]]), "got log-probabilities of 2 tokens"),
        (scored([5, 6, 7], own=entries([5, 6, 7])), "of which the first has none"),
        (
            scored([5, 6, 7], own=[[None, 5, None], [-1.0, 0, None], [-1.0, 7, None]]),
            "at position 1 got [0, 7]",
        ),
        (scored([5, 6, 7], own=[[None, 5, None], [-1.0, 6, None], [-1.0, 0, None]]), "at position 2 got [0]"),
        (scored([5, 6, 7], lists=[None, [[-0.1, 6, None]]]), "and 2 lists of likely ones"),
        (scored([5, 6, 7], width=1), "got 1 likely tokens at position 1, expected 2"),
        (scored([5, 6, 7], lists=[None, None, None]), "got 0 likely tokens at position 1, expected 2"),
    ],
)
async def test_scores_that_are_cut_short_or_of_other_tokens_are_the_engines_failure(
    answer: Any, words: str
) -> None:
    with pytest.raises(EngineUnavailable, match=re.escape(words)):
        await scores(answer)


async def test_an_engine_without_prompt_log_probabilities_can_be_no_reference() -> None:
    with pytest.raises(TaskRefused, match="it can't be a reference"):
        await scores(scored([5, 6, 7], own=[]))
    async with scripted(scored([5, 6, 7])) as (backend, server):
        with pytest.raises(TaskRefused, match="never the whole vocabulary"):
            await backend.prompt_logprobs("m", (5, 6, 7), -1)
    assert server.requests == []


async def test_what_was_likely_under_the_protocols_sampler_is_found_by_scoring_the_answer() -> None:
    answers = (answering([7, 2], finish={"type": "stop", "matched": 2}), scored([*PROMPT.token_ids, 7, 2]))
    async with scripted(*answers) as (backend, server):
        (chunk,) = await generated(backend, DRAWN, top=2)
    assert server.requests[1].body["input_ids"] == [*PROMPT.token_ids, 7, 2]
    assert "custom_logit_processor" not in server.requests[1].body
    assert (chunk.token_ids, chunk.text, chunk.ended) == ((7, 2), "<7><2>", "stop")
    assert [sorted(row) for row in chunk.top] == [[7, 50], [2, 50]]
    assert chunk.logprobs == pytest.approx((-0.07, -0.02))
    assert (chunk.prompt_tokens, chunk.completion_tokens) == (3, 2)
