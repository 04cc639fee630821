"""What every adapter of the engine port does, run on each of them with the real default model in fp32."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio
import numpy as np
import pytest

from targon.engines import Engine, GenerateTask, ScoreTask, Step, TaskRefused, connect_engine
from targon.engines.transformers_engine import TransformersEngine
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId

from .conftest import MAX_BATCH
from .tasks import answer, claim, ids_of, replayed, task, text_of

pytestmark = pytest.mark.anyio

QUESTIONS = (
    "Tell me about the sea and the wind.",
    "List three colours.",
    "Why is the sky blue? Answer in one sentence, and mention the sun.",
    "Write a line of verse.",
    "What does a compiler do? " * 6,
    "Hello!",
)


@pytest.fixture(params=["in this process", "in a process of its own"])
async def engine(
    request: pytest.FixtureRequest, fp32_engine: TransformersEngine, engine_socket: Path
) -> AsyncIterator[Engine]:
    if request.param == "in this process":
        yield fp32_engine
    else:
        async with connect_engine(engine_socket) as client:
            yield client


@pytest.fixture
def reference(fp32_engine: TransformersEngine) -> Engine:
    """An engine that scores the whole vocabulary exactly."""
    return fp32_engine


async def answers(engine: Engine, asked: list[GenerateTask]) -> list[list[Step]]:
    """The answers to tasks asked all at once."""
    results: dict[int, list[Step]] = {}

    async def ask(place: int) -> None:
        results[place] = await answer(engine, asked[place])

    async with anyio.create_task_group() as tasks:
        for place in range(len(asked)):
            tasks.start_soon(ask, place)
    return [results[place] for place in range(len(asked))]


async def test_an_answer_is_replayed_exactly_from_its_scores(engine: Engine, reference: Engine) -> None:
    asked = task(max_tokens=32)
    steps = await answer(engine, asked)
    (scores,) = await reference.score([claim(asked, steps)])
    assert replayed(asked, scores) == ids_of(steps)
    assert np.allclose(scores.claimed_logprobs, [step.logprob for step in steps], atol=1e-3)


async def test_answers_given_at_once_are_replayed_exactly_and_are_those_given_alone(
    engine: Engine, reference: Engine
) -> None:
    asked = [task(question, run_key=place) for place, question in enumerate(QUESTIONS)]
    together = await answers(engine, asked)
    scores = await reference.score([claim(*pair) for pair in zip(asked, together, strict=True)])
    assert [replayed(*pair) for pair in zip(asked, scores, strict=True)] == [
        ids_of(steps) for steps in together
    ]
    assert ids_of(await answer(engine, asked[2])) == ids_of(together[2])


async def test_more_requests_than_the_batch_holds_are_all_answered(engine: Engine) -> None:
    asked = [task("Hello!", max_tokens=2 + place % 3, run_key=place) for place in range(2 * MAX_BATCH + 1)]
    for one, steps in zip(asked, await answers(engine, asked), strict=True):
        assert 1 <= len(steps) <= one.sampling.max_tokens


@pytest.mark.parametrize("dialect", ["greedy", "targon/1"])
async def test_at_temperature_0_every_token_is_the_most_likely_one(
    engine: Engine, reference: Engine, dialect: str
) -> None:
    asked = task(temperature=0.0, dialect=dialect, max_tokens=16)
    steps = await answer(engine, asked)
    (scores,) = await reference.score([claim(asked, steps, top_k=1)])
    assert not scores.claimed_ranks.any()
    assert tuple(scores.top_ids[:, 0]) == ids_of(steps)


async def test_top_k_and_top_p_are_replayed_exactly(engine: Engine, reference: Engine) -> None:
    asked = task(top_k=20, top_p=0.9, temperature=1.0)
    steps = await answer(engine, asked)
    (scores,) = await reference.score([claim(asked, steps)])
    assert replayed(asked, scores) == ids_of(steps)


async def test_an_answer_ends_at_the_end_of_sequence_token(engine: Engine) -> None:
    steps = await answer(engine, task("Say hello.", temperature=0.0, dialect="greedy", max_tokens=64))
    assert steps[-1].finish_reason == "stop"
    assert steps[-1].token_id in engine.identity.eos_ids
    assert not set(ids_of(steps[:-1])) & set(engine.identity.eos_ids)
    assert text_of(steps) == await engine.text(ids_of(steps), ())
    assert "<|im_end|>" not in text_of(steps)


async def test_only_the_last_step_says_why_the_answer_ended(engine: Engine) -> None:
    steps = await answer(engine, task(temperature=0.0, dialect="greedy", max_tokens=5))
    assert [step.finish_reason for step in steps] == [None, None, None, None, "length"]


async def test_a_stop_string_that_spans_tokens_ends_the_answer_before_it(engine: Engine) -> None:
    whole = await answer(engine, task(temperature=0.0, dialect="greedy"))
    stop = whole[5].text[-2:] + whole[6].text[:2]
    steps = await answer(engine, task(temperature=0.0, dialect="greedy", stop=("no such text", stop)))
    assert steps[-1].finish_reason == "stop_string"
    assert ids_of(steps) == ids_of(whole)[: len(steps)]
    assert len(steps) <= 7
    assert text_of(steps) == text_of(whole)[: text_of(whole).index(stop)]
    assert text_of(steps) == await engine.text(ids_of(steps), (stop,))


async def test_text_beyond_ascii_comes_in_whole_characters(engine: Engine) -> None:
    steps = await answer(
        engine, task("Repeat exactly: 漢字 😀🎉 naïve", temperature=0.0, dialect="greedy", max_tokens=32)
    )
    assert text_of(steps) == await engine.text(ids_of(steps), ())
    assert not text_of(steps).isascii()
    assert "\N{REPLACEMENT CHARACTER}" not in text_of(steps)


async def test_token_ids_carry_any_text_there_and_back(engine: Engine) -> None:
    sentence = "漢字 and 😀🎉, naïve café\n\tdéjà vu"
    prompt = await engine.prompt_token_ids([ChatMessage(role="user", content=sentence)])
    assert sentence in await engine.text(prompt, ())


async def test_a_prompt_ends_where_the_assistant_begins(engine: Engine) -> None:
    prompt = await engine.prompt_token_ids([ChatMessage(role="user", content="hi")])
    expected = (
        "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\nuser\nhi\nassistant\n"
    )
    assert await engine.text(prompt, ()) == expected


async def test_scores_are_a_distribution_at_every_position(engine: Engine) -> None:
    asked = task(max_tokens=6)
    steps = await answer(engine, asked)
    (scores,) = await engine.score([claim(asked, steps)])
    assert scores.top_logprobs.shape == (len(steps), engine.identity.vocab_size)
    assert scores.top_logprobs.dtype == np.float32
    assert np.isfinite(scores.top_logprobs).all()
    assert np.allclose(np.exp(scores.top_logprobs.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)
    assert (scores.top_ids == np.arange(engine.identity.vocab_size)).all()
    assert scores.prompt_tokens == len(await engine.prompt_token_ids(asked.messages))


async def test_the_top_k_are_the_best_of_the_whole_vocabulary(engine: Engine) -> None:
    asked = task(max_tokens=6)
    steps = await answer(engine, asked)
    whole, top = await engine.score([claim(asked, steps), claim(asked, steps, top_k=10)])
    order = np.argsort(-whole.top_logprobs, axis=1, kind="stable")[:, :10]
    assert (top.top_ids == order).all()
    assert np.allclose(top.top_logprobs, np.take_along_axis(whole.top_logprobs, order, axis=1), atol=1e-3)
    own = whole.top_logprobs[np.arange(len(steps)), list(ids_of(steps))]
    assert np.allclose(top.claimed_logprobs, own, atol=1e-3)
    assert (whole.claimed_ranks == (whole.top_logprobs > own[:, None]).sum(axis=1)).all()


async def test_completions_scored_together_score_as_they_do_alone(engine: Engine) -> None:
    lengths = (1, 40, 7, 1_050)  # the last one needs several forward passes
    tasks = [
        ScoreTask(
            (ChatMessage(role="user", content=QUESTIONS[place]),), tuple(map(TokenId, range(300, 300 + n))), 5
        )
        for place, n in enumerate(lengths)
    ]
    together = await engine.score(tasks)
    for one, scores in zip(tasks, together, strict=True):
        (alone,) = await engine.score([one])
        assert scores.claimed_logprobs.shape == (len(one.token_ids),)
        assert np.allclose(scores.claimed_logprobs, alone.claimed_logprobs, atol=2e-3)
        assert np.allclose(scores.top_logprobs, alone.top_logprobs, atol=2e-3)


async def test_nothing_to_score_is_answered_with_nothing(engine: Engine) -> None:
    assert await engine.score([]) == []


async def test_generating_and_scoring_go_on_together(engine: Engine) -> None:
    asked = task(max_tokens=8)
    steps = await answer(engine, asked)
    results: list[object] = []

    async def score() -> None:
        results.extend(await engine.score([claim(asked, steps, top_k=4)] * 3))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(score)
        again = await answer(engine, asked)
    assert ids_of(again) == ids_of(steps)
    assert len(results) == 3


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (task(max_tokens=8_200), ("context length", "8200 max_tokens", "at most 8192")),
        (task("word " * 9_000), ("context length", "at most 8192")),
        (task(dialect="vllm"), ("dialect", "'vllm'")),
        (task(temperature=0.01), ("temperature", "0.01", "0.05")),
        (task(dialect="greedy"), ("temperature", "0.8")),
        (GenerateTask((), task().sampling, 0), ("messages",)),
    ],
)
async def test_a_task_that_cannot_be_served_is_refused_by_name(
    engine: Engine, asked: GenerateTask, named: tuple[str, ...]
) -> None:
    with pytest.raises(TaskRefused) as refusal:
        await answer(engine, asked)
    for part in named:
        assert part in str(refusal.value)


async def test_a_sampler_of_its_own_is_none_that_it_has(engine: Engine) -> None:
    with pytest.raises(TaskRefused, match="'dialect': got 'native'"):
        await answer(engine, task(dialect="native"))


@pytest.mark.parametrize(
    ("token_ids", "top_k", "named"),
    [
        ((), 5, "token_ids"),
        ((49_152,), 5, "49152"),
        ((-1,), 5, "-1"),
        ((5,), 49_153, "top_k"),
        (tuple(range(100)) * 82, 5, "context length"),
    ],
)
async def test_scores_that_cannot_be_had_are_refused_by_name(
    engine: Engine, token_ids: tuple[TokenId, ...], top_k: int, named: str
) -> None:
    with pytest.raises(TaskRefused, match=named):
        await engine.score([ScoreTask(task().messages, token_ids, top_k)])


async def test_closing_an_answer_frees_its_place(engine: Engine) -> None:
    async def begin(place: int) -> None:
        async with aclosing(engine.generate(task(max_tokens=8_000, run_key=place))) as steps:
            await anext(steps)

    async with anyio.create_task_group() as tasks:
        for place in range(MAX_BATCH):
            tasks.start_soon(begin, place)
    # were one place still taken, its 8,000 tokens would keep it for minutes
    with anyio.fail_after(30):
        await answers(engine, [task("Hello!", max_tokens=2, run_key=place) for place in range(MAX_BATCH)])


async def test_cancelling_who_waits_for_an_answer_frees_its_place_too(engine: Engine) -> None:
    async with anyio.create_task_group() as tasks:
        for place in range(MAX_BATCH + 2):
            tasks.start_soon(answer, engine, task(max_tokens=8_000, run_key=place))
        await anyio.sleep(0.5)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        await answers(engine, [task("Hello!", max_tokens=2, run_key=place) for place in range(MAX_BATCH)])


async def test_an_engine_says_what_it_runs(engine: Engine) -> None:
    await engine.check()
    identity = engine.identity
    assert (identity.name, identity.dtype, identity.vocab_size) == (
        "SmolLM2-135M-Instruct",
        "float32",
        49_152,
    )
    assert (identity.context_length, identity.eos_ids, identity.max_batch) == (8_192, (2,), MAX_BATCH)
    assert identity.dialects == ("targon/1", "greedy")
    assert identity.engine.startswith("transformers ")
    assert len(identity.model_digest) == 64
