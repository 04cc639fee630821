"""What a prover may send, and what a broken reference engine may say: always a verdict, never a wrong pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targon.engines import EngineUnavailable, Replayed, ReplayTask
from targon.protocol.draws import request_run_key
from targon.protocol.messages import Completion, GenerateRequest, GenerateResponse
from targon.protocol.replay import MARGIN_CLIP
from targon.protocol.suspicions import NO_RIVALS
from targon.verification import (
    Verdict,
    check_divergence,
    check_structure,
    divergence_verdict,
    judge_divergence,
)
from targon.verification.reference import doubt_replayed
from tests.tiny_engine import VOCABULARY, TinyEngine
from tests.verification.answers import LENGTH, honestly, signed, tiny_request, whole_answer

pytestmark = pytest.mark.anyio

ANY_ENGINE = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Broken(TinyEngine):
    """A reference engine that changes what it found; the first answer is number 0."""

    def __init__(self, change: Any = lambda number, results: results, *, pause_s: float = 0.0) -> None:
        super().__init__(pause_s=pause_s)
        self.change = change
        self.replays = 0
        self.says = TinyEngine.text

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        await anyio.sleep(self.pause_s)
        results = self.change(self.replays, await super().replay(tasks))
        self.replays += 1
        return results

    async def text(self, token_ids: Sequence[int], stop: Sequence[str]) -> str:
        await anyio.sleep(self.pause_s)
        return await self.says(self, token_ids, stop)


async def judged(
    request: GenerateRequest, completion: Completion, engine: TinyEngine, **more: Any
) -> Verdict:
    verdict, divergence = await judge_divergence(
        request, completion, engine, similarity_threshold=0.95, margin_tolerance=0.1, **more
    )
    assert (divergence.replayed is None) == (divergence.settled is not None)
    return verdict


@pytest.fixture
def honest() -> tuple[GenerateRequest, GenerateResponse, Replayed]:
    """A request, its honest answer, and what a reference engine says of it."""
    request, response = anyio.run(whole_answer)
    ids = response.completion.token_ids
    task = ReplayTask(request.messages, ids, request.sampling, request_run_key(request))
    return request, response, anyio.run(TinyEngine().replay, [task])[0]


# -- what a prover sends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "from character 0 on: got 0 characters in all"),
        ("nonsense", "from character 0 on: got 8 characters in all"),
        (None, "characters in all, expected"),
    ],
)
async def test_a_text_that_the_token_ids_do_not_say_fails(text, said) -> None:
    request, response = await whole_answer()
    told = response.completion.text + "!" if text is None else text
    changed = response.completion.model_copy(update={"text": told})
    verdict = await check_structure(request, signed(request, changed), TinyEngine())
    assert verdict is not None
    assert (verdict.outcome, verdict.method) == ("fail", "structure")
    assert said in verdict.reason


async def test_a_text_up_to_a_stop_string_is_the_whole_text() -> None:
    for number in range(200):
        request = tiny_request(number, stop=["e", "t"], max_tokens=40)
        response = await honestly(request)
        assert await check_structure(request, response, TinyEngine()) is None
        if response.completion.finish_reason == "stop_string":
            longer = response.completion.model_copy(update={"text": response.completion.text + "e"})
            verdict = await check_structure(request, signed(request, longer), TinyEngine())
            assert verdict is not None
            assert "not what the token ids say" in verdict.reason
            return
    raise AssertionError("no answer came to a stop string")


async def test_control_characters_in_a_text_do_not_reach_a_reason() -> None:
    request, response = await whole_answer()
    changed = response.completion.model_copy(update={"text": "\x1b[2J\u202e"})
    verdict = await check_structure(request, signed(request, changed), TinyEngine())
    assert verdict is not None
    assert verdict.reason.isprintable()


async def test_a_tokenizer_that_is_another_one_now_charges_nobody() -> None:
    request, response = await whole_answer()

    class Replaced(TinyEngine):
        async def text(self, token_ids: Sequence[int], stop: Sequence[str]) -> str:
            return "another tokenizer"

        async def check(self) -> None:
            raise EngineUnavailable("got another model than before")

    with pytest.raises(EngineUnavailable, match="another model"):
        await check_structure(request, response, Replaced())


def any_completion(request: GenerateRequest, honest: Completion) -> st.SearchStrategy[Completion]:
    """The honest completion with any of its fields mangled, also in ways that no parser would let through."""
    ids = st.lists(st.integers(-3, VOCABULARY + 3), max_size=LENGTH + 3).map(tuple)
    numbers = st.floats(allow_nan=True, allow_infinity=True)
    return st.builds(
        lambda **fields: Completion.model_construct(
            **{**honest.to_json(), **{name: value for name, value in fields.items() if value is not ...}}
        ),
        token_ids=st.one_of(st.just(honest.token_ids), ids, st.just(honest.token_ids[:-1])),
        text=st.one_of(st.just(honest.text), st.text(max_size=20)),
        finish_reason=st.sampled_from(["stop", "stop_string", "length"]),
        logprobs=st.one_of(
            st.none(), st.lists(numbers, max_size=LENGTH + 1).map(tuple), st.just((-1.0,) * LENGTH)
        ),
        request_digest=st.sampled_from([request.digest(), "0" * 64]),
    )


@ANY_ENGINE
@given(data=st.data())
def test_no_answer_crashes_it_and_only_the_honest_one_passes(honest, data) -> None:
    request, response, _ = honest
    mangled = data.draw(any_completion(request, response.completion))
    receipt = response.receipt
    if data.draw(st.booleans()):
        try:
            receipt = signed(request, mangled.model_copy()).receipt
        except Exception:  # noqa: BLE001 - what can't be signed keeps the honest receipt
            receipt = response.receipt
    answer = GenerateResponse.model_construct(completion=mangled, receipt=receipt)
    verdict = anyio.run(check_structure, request, answer, TinyEngine())
    if verdict is None:
        verdict = anyio.run(judged, request, mangled, TinyEngine())
    if verdict.outcome == "pass":
        for field in ("token_ids", "finish_reason", "text"):
            assert getattr(mangled, field) == getattr(response.completion, field)
        assert mangled.request_digest == request.digest()
        assert mangled.logprobs in (None, (-1.0,) * LENGTH)
    else:
        assert verdict.outcome == "fail"
        assert verdict.reason


# -- what a reference engine says ---------------------------------------------------------------------------


async def test_a_reference_that_is_slow_decides_nothing() -> None:
    request, response = await whole_answer()
    verdict = await judged(request, response.completion, Broken(pause_s=60.0), deadline_s=0.01)
    assert verdict.outcome == "inconclusive"
    assert "no answer within 0.01 s" in verdict.reason


async def test_a_tokenizer_that_is_slow_decides_nothing() -> None:
    request, response = await whole_answer()
    with pytest.raises(EngineUnavailable, match="no answer within"):
        await check_structure(request, response, Broken(pause_s=60.0), deadline_s=0.01)


async def test_a_failure_is_replayed_again_before_it_counts() -> None:
    request, response = await whole_answer(wrong=True)
    engine = Broken()
    verdict = await judged(request, response.completion, engine)
    assert (verdict.outcome, engine.replays) == ("fail", 2)


async def test_a_pass_is_replayed_once() -> None:
    request, response = await whole_answer()
    engine = Broken()
    verdict = await judged(request, response.completion, engine)
    assert (verdict.outcome, engine.replays) == ("pass", 1)


def confused(claimed: Sequence[int]) -> Any:
    """Numbers that fit one another, but not the model: another best token everywhere, and others each time."""

    def change(number: int, results: list[Replayed]) -> list[Replayed]:
        (replayed,) = results
        count = len(claimed)
        wrong = replace(
            replayed.replay,
            best_ids=(np.array(claimed) + 1 + number) % VOCABULARY,
            gaps=np.full(count, 3.0),
            margins=np.full(count, 4.0),
            among=np.ones(count, np.bool_),
        )
        return [replace(replayed, replay=wrong)]

    return change


async def test_a_reference_that_contradicts_itself_convicts_nobody() -> None:
    request, response = await whole_answer(wrong=True)
    engine = Broken(confused(response.completion.token_ids))
    divergence = await check_divergence(request, response.completion, engine)
    assert divergence.settled is None
    assert divergence_verdict(divergence, similarity_threshold=0.9, margin_tolerance=0.1).outcome == "fail"
    verdict = await judged(request, response.completion, Broken(confused(response.completion.token_ids)))
    assert verdict.outcome == "inconclusive"
    assert "contradicts itself" in verdict.reason


async def test_a_failure_that_turns_into_a_pass_counts_as_neither() -> None:
    request, response = await whole_answer()

    def once(number: int, results: list[Replayed]) -> list[Replayed]:
        if number:
            return results
        (replayed,) = results
        gaps, margins = np.full(LENGTH, 0.2), np.full(LENGTH, 0.3)
        best = replayed.replay.best_ids % (VOCABULARY - 1) + 1
        return [replace(replayed, replay=replace(replayed.replay, best_ids=best, gaps=gaps, margins=margins))]

    verdict = await judged(request, response.completion, Broken(once))
    assert verdict.outcome == "inconclusive"
    assert "similarity 0.0000, then 1.0000" in verdict.reason


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("prompt_tokens", 7, "prompt_tokens 1, then 7"), ("top_k", 9, "top_k 0, then 9")],
)
async def test_a_second_replay_of_something_else_confirms_nothing(field, value, said) -> None:
    request, response = await whole_answer(wrong=True)
    engine = Broken(lambda number, results: [replace(results[0], **({field: value} if number else {}))])
    verdict = await judged(request, response.completion, engine)
    assert verdict.outcome == "inconclusive"
    assert said in verdict.reason


async def test_log_probabilities_that_move_between_two_replays_confirm_nothing() -> None:
    request, response = await whole_answer(wrong=True)

    def drift(number: int, results: list[Replayed]) -> list[Replayed]:
        results[0].claimed_logprobs[2] -= 2.5 * number
        return results

    verdict = await judged(request, response.completion, Broken(drift))
    assert verdict.outcome == "inconclusive"
    assert "at position 2, then" in verdict.reason


async def test_a_reference_that_goes_down_before_it_confirms_charges_nobody() -> None:
    request, response = await whole_answer(wrong=True)

    def then_down(number: int, results: list[Replayed]) -> list[Replayed]:
        if number:
            raise EngineUnavailable("it went down")
        return results

    verdict = await judged(request, response.completion, Broken(then_down))
    assert verdict.outcome == "inconclusive"
    assert "it went down; it had failed before: " in verdict.reason


def changed(replayed: Replayed, field: str, values: Any) -> Replayed:
    if field in type(replayed.replay).__slots__:
        return replace(replayed, replay=replace(replayed.replay, **{field: values}))
    return replace(replayed, **{field: values})


IMPOSSIBLE: dict[str, tuple[float, ...]] = {
    "best_ids": (-1, VOCABULARY, 2**40),
    "gaps": (np.nan, -0.1, np.inf, MARGIN_CLIP + 0.1),
    "margins": (np.nan, -0.1, np.inf, MARGIN_CLIP + 0.1, 3.0),
    "tail_mass": (-0.1, 1.1, np.inf),
    "claimed_logprobs": (np.nan, np.inf, 0.1, -np.inf),
    "claimed_ranks": (-1, VOCABULARY, 2**30),
    "rivals": (2**28, NO_RIVALS - 1, 2**32 - 1),
    "claimed_rivals": (1, 64, 128),
}
"""What no position of an honest answer's replay can be (a margin of 3 is none of the best token itself)."""


@ANY_ENGINE
@given(data=st.data())
def test_a_replay_with_an_impossible_number_decides_nothing(honest, data) -> None:
    request, response, replayed = honest
    field = data.draw(st.sampled_from(sorted(IMPOSSIBLE)))
    place = data.draw(st.integers(0, LENGTH - 1))
    values = np.array(getattr(replayed if hasattr(replayed, field) else replayed.replay, field))
    values[place] = data.draw(st.sampled_from(IMPOSSIBLE[field]))
    engine = Broken(lambda number, results: [changed(replayed, field, values)])
    verdict = anyio.run(judged, request, response.completion, engine)
    assert verdict.outcome == "inconclusive"
    assert f"at position {place}" in verdict.reason


@ANY_ENGINE
@given(data=st.data())
def test_a_replay_of_another_shape_or_kind_decides_nothing(honest, data) -> None:
    request, response, replayed = honest
    fields = [*type(replayed.replay).__slots__, "claimed_logprobs", "claimed_ranks"]
    field = data.draw(st.sampled_from(fields))
    values = getattr(replayed if hasattr(replayed, field) else replayed.replay, field)
    other = data.draw(
        st.sampled_from(
            [
                values[:-1],
                np.append(values, values[-1]),
                values[None],
                values[:0],
                values.astype(object),
                values.astype(str),
                values.astype(np.complex64),
                values.tolist(),
                None,
            ]
        )
    )
    engine = Broken(lambda number, results: [changed(replayed, field, other)])
    verdict = anyio.run(judged, request, response.completion, engine)
    assert verdict.outcome == "inconclusive"
    assert field in verdict.reason


@ANY_ENGINE
@given(data=st.data())
def test_whatever_numbers_a_reference_gives_the_verdict_is_one_of_three(honest, data) -> None:
    request, response, replayed = honest
    for field in data.draw(st.lists(st.sampled_from(sorted(IMPOSSIBLE)), min_size=1, unique=True)):
        values = np.array(getattr(replayed if hasattr(replayed, field) else replayed.replay, field))
        least = 0 if values.dtype.kind == "u" else -2
        number = st.integers(least, VOCABULARY + 1) if values.dtype.kind in "iu" else st.floats(width=32)
        for place in data.draw(st.sets(st.integers(0, LENGTH - 1), max_size=4)):
            values[place] = data.draw(number)
        replayed = changed(replayed, field, values)
    doubt = doubt_replayed([replayed], np.array(response.completion.token_ids), VOCABULARY)
    verdict = anyio.run(judged, request, response.completion, Broken(lambda number, results: [replayed]))
    assert (verdict.outcome == "inconclusive") == (doubt is not None)
    if verdict.outcome == "pass":
        assert (replayed.replay.margins * 0.8 > 0.1).mean() <= 0.05


@pytest.mark.parametrize("field", [{"prompt_tokens": 0}, {"top_k": -1}, {"top_k": VOCABULARY + 1}])
def test_a_replay_of_no_prompt_or_an_impossible_list_decides_nothing(honest, field) -> None:
    request, response, replayed = honest
    engine = Broken(lambda number, results: [replace(replayed, **field)])
    verdict = anyio.run(judged, request, response.completion, engine)
    assert verdict.outcome == "inconclusive"
    assert "could not decide: got a prompt of" in verdict.reason


def mismatching(**fields: Any) -> Any:
    """A replay of which position 3 disagrees, with these values there."""

    def change(number: int, results: list[Replayed]) -> list[Replayed]:
        replay = results[0].replay
        replay.best_ids[3] = replay.best_ids[3] % (VOCABULARY - 1) + 1
        for name, value in fields.items():
            getattr(replay, name)[3] = value
        return results

    return change


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"margins": 0.0, "gaps": 0.5}, "got margin, less than the gap, 0.0 at position 3"),
        ({"margins": 0.2, "gaps": 0.5}, "got margin, less than the gap, 0.2 at position 3"),
        ({"margins": 5.0, "gaps": 0.1, "among": False}, "got margin, of no candidate, 5.0 at position 3"),
    ],
)
async def test_numbers_that_do_not_fit_one_another_decide_nothing(fields, said) -> None:
    request, response = await whole_answer()
    verdict = await judged(request, response.completion, Broken(mismatching(**fields)))
    assert verdict.outcome == "inconclusive"
    assert said in verdict.reason


async def test_a_margin_below_a_gap_of_which_the_reference_is_unsure_is_believed() -> None:
    request, response = await whole_answer()
    engine = Broken(mismatching(margins=0.2, gaps=0.5, unsure=True))
    assert (await judged(request, response.completion, engine)).outcome == "fail"
