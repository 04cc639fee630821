"""What replaying says of honest engines and of cheats, with the real default model and an fp32 reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest

from targon.engines import (
    Engine,
    EngineUnavailable,
    GenerateTask,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    TaskRefused,
    connect_engine,
    replay_by_score,
    serve_engine,
    wire,
)
from targon.engines.transformers_engine import TransformersEngine, open_transformers_engine
from targon.protocol import MARGIN_CLIP, Sampling
from targon.protocol.errors import MalformedMessage
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.replay import Replay

from .tasks import answer, ids_of, task

pytestmark = pytest.mark.anyio

QUESTIONS = (
    "Tell me about the sea and the wind.",
    "Write a long story of a lighthouse keeper.",
    "Why is the sky blue? Explain it at length.",
    "What does a compiler do? Explain it to a child, step by step.",
    "Describe a market in the morning, with all its smells and voices.",
    "How is bread made? Tell me everything.",
)


async def together(engine: Engine, asked: Sequence[GenerateTask]) -> list[tuple[TokenId, ...]]:
    answers: dict[int, tuple[TokenId, ...]] = {}

    async def ask(place: int) -> None:
        answers[place] = ids_of(await answer(engine, asked[place]))

    async with anyio.create_task_group() as tasks:
        for place in range(len(asked)):
            tasks.start_soon(ask, place)
    return [answers[place] for place in range(len(asked))]


def claimed(asked: GenerateTask, ids: Sequence[int]) -> ReplayTask:
    return ReplayTask(asked.messages, tuple(map(TokenId, ids)), asked.sampling, asked.run_key)


def questions(**parameters: object) -> list[GenerateTask]:
    return [
        task(question, run_key=place, **{"max_tokens": 48, **parameters})
        for place, question in enumerate(QUESTIONS)
    ]


async def pooled(
    prover: Engine, reference: Engine, asked: list[GenerateTask], claims: list[GenerateTask] | None = None
) -> tuple[float, float, float]:
    """Agreement, mean and largest margin of what a prover answers to ``asked`` and claims to be ``claims``."""
    answers = await together(prover, asked)
    results = await reference.replay(list(map(claimed, claims or asked, answers)))
    margins = np.concatenate([result.replay.margins for result in results])
    return float(np.mean(margins == 0.0)), float(margins.mean()), float(margins.max())


def assert_same(one: Replayed, other: Replayed) -> None:
    for name in Replay.__slots__:
        assert np.array_equal(
            getattr(one.replay, name), getattr(other.replay, name), equal_nan=name == "tail_mass"
        )
        assert getattr(one.replay, name).dtype == getattr(other.replay, name).dtype
    assert one.claimed_logprobs.tolist() == other.claimed_logprobs.tolist()
    assert one.claimed_ranks.tolist() == other.claimed_ranks.tolist()
    assert (one.prompt_tokens, one.top_k) == (other.prompt_tokens, other.top_k)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"temperature": 1.0, "top_p": 0.95}, {"temperature": 1.0, "top_k": 30}, {"temperature": 0.0}],
)
async def test_an_honest_answer_in_the_references_own_number_format_agrees_at_every_position(
    fp32_engine: TransformersEngine, parameters: dict[str, object]
) -> None:
    asked = questions(max_tokens=24, **parameters)
    answers = await together(fp32_engine, asked)
    alone = ids_of(await answer(fp32_engine, asked[0]))
    results = await fp32_engine.replay([*map(claimed, asked, answers), claimed(asked[0], alone)])
    for ids, result in zip([*answers, alone], results, strict=True):
        assert result.replay.agreement == 1.0
        assert result.replay.best_ids.tolist() == list(ids)
        assert not result.replay.unsure.any()
        assert (result.replay.gaps > 0.0).all()
        assert result.top_k == 0


async def test_a_replay_is_what_the_scores_of_the_whole_vocabulary_say(
    fp32_engine: TransformersEngine,
) -> None:
    asked = [*questions(max_tokens=8)[:2], *questions(max_tokens=8, temperature=1.0, top_p=0.9)[2:4]]
    tasks = [claimed(one, range(300, 308)) for one in asked]
    replays = await fp32_engine.replay(tasks)
    scored = await replay_by_score(fp32_engine, tasks, top_k=0)
    for one, other in zip(replays, scored, strict=True):
        assert one.replay.best_ids.tolist() == other.replay.best_ids.tolist()
        assert one.replay.among.tolist() == other.replay.among.tolist()
        assert one.replay.in_tail.tolist() == other.replay.in_tail.tolist()
        assert np.allclose(one.replay.gaps, other.replay.gaps, atol=1e-3)
        assert np.allclose(one.replay.margins, other.replay.margins, atol=1e-3)
        assert np.allclose(one.replay.tail_mass, other.replay.tail_mass, atol=1e-4)
        assert np.allclose(one.claimed_logprobs, other.claimed_logprobs, atol=1e-3)
        assert one.claimed_ranks.tolist() == other.claimed_ranks.tolist()
        assert one.prompt_tokens == other.prompt_tokens


async def test_a_replay_says_the_same_over_a_socket(fp32_engine: TransformersEngine, tmp_path: Path) -> None:
    asked = [task(), task(temperature=0.0), task(top_p=0.5, temperature=1.0, run_key=2**64 - 1)]
    tasks = [claimed(one, range(400, 440)) for one in asked]
    folder = tmp_path / "private"
    async with serve_engine(fp32_engine, folder / "e.sock"), connect_engine(folder / "e.sock") as client:
        for one, other in zip(await fp32_engine.replay(tasks), await client.replay(tasks), strict=True):
            assert_same(one, other)
        assert await client.replay([]) == []


async def test_replays_asked_for_at_once_are_those_asked_for_alone(fp32_engine: TransformersEngine) -> None:
    tasks = [
        claimed(one, range(300, 300 + length))
        for one, length in zip(questions(), (1, 40, 7, 150, 1_100, 3), strict=True)
    ]
    results: dict[int, Replayed] = {}

    async def ask(place: int) -> None:
        (results[place],) = await fp32_engine.replay([tasks[place]])

    async with anyio.create_task_group() as group:
        for place in range(len(tasks)):
            group.start_soon(ask, place)
    for place, one in enumerate(tasks):
        (alone,) = await fp32_engine.replay([one])
        assert alone.replay.margins.shape == (len(one.token_ids),)
        assert np.allclose(results[place].replay.margins, alone.replay.margins, atol=5e-3)
        assert np.allclose(results[place].claimed_logprobs, alone.claimed_logprobs, atol=2e-3)


async def test_an_honest_engine_in_bfloat16_differs_now_and_then_by_a_hair(
    fp32_engine: TransformersEngine, bf16_engine: TransformersEngine
) -> None:
    agreement, mean, largest = await pooled(bf16_engine, fp32_engine, questions())
    assert agreement >= 0.95
    assert mean < 0.005
    assert largest < 0.6


async def test_a_wrong_seed_agrees_by_luck_alone(fp32_engine: TransformersEngine) -> None:
    asked = questions()
    other = [replace(one, run_key=one.run_key ^ 0x5EED) for one in asked]
    agreement, mean, _ = await pooled(fp32_engine, fp32_engine, other, asked)
    assert 0.25 < agreement < 0.65
    assert mean > 0.8


async def test_another_temperature_than_asked_for_shows(fp32_engine: TransformersEngine) -> None:
    agreement, mean, _ = await pooled(
        fp32_engine, fp32_engine, questions(temperature=1.0), questions(temperature=0.8)
    )
    assert 0.7 < agreement < 0.93
    assert mean > 0.03


async def test_ignored_cuts_show_as_tokens_that_were_no_candidates(fp32_engine: TransformersEngine) -> None:
    asked, asked_for = questions(temperature=1.2), questions(temperature=1.2, top_p=0.6)
    answers = await together(fp32_engine, asked)
    results = await fp32_engine.replay(list(map(claimed, asked_for, answers)))
    outside = np.concatenate([~result.replay.among for result in results])
    margins = np.concatenate([result.replay.margins for result in results])
    tail = np.concatenate([result.replay.in_tail for result in results])
    assert outside.mean() > 0.05
    assert (margins[outside] == MARGIN_CLIP).all()
    assert tail[outside].all()


async def test_int4_weights_show_at_once(fp32_engine: TransformersEngine) -> None:
    async with open_transformers_engine(dtype="bfloat16", variant="int4", max_batch=8) as cheat:
        agreement, mean, _ = await pooled(cheat, fp32_engine, questions(max_tokens=24))
    assert 0.3 < agreement < 0.85
    assert mean > 0.2


async def test_the_end_claimed_too_early_has_a_margin_of_its_own(fp32_engine: TransformersEngine) -> None:
    asked = questions()[1]
    ids = ids_of(await answer(fp32_engine, asked))[:20]
    eos = fp32_engine.identity.eos_ids[0]
    assert eos not in ids
    (result,) = await fp32_engine.replay([claimed(asked, (*ids, eos))])
    assert result.replay.margins[:-1].tolist() == [0.0] * 20
    assert result.replay.margins[-1] > 1.0
    assert result.claimed_logprobs[-1] < -2.0


@pytest.mark.parametrize("top_k", [1, 20, 200])
async def test_with_the_most_likely_tokens_alone_an_honest_answer_agrees_too(
    fp32_engine: TransformersEngine, top_k: int
) -> None:
    asked = [task(max_tokens=12), task(max_tokens=12, top_k=20), task(max_tokens=12, temperature=0.0)]
    answers = await together(fp32_engine, asked)
    results = await replay_by_score(fp32_engine, list(map(claimed, asked, answers)), top_k=top_k)
    for result in results:
        assert result.replay.agreement == 1.0
        assert result.top_k == top_k
    assert results[0].replay.unsure.any()
    assert results[1].replay.unsure.all() == (top_k < 20)
    assert not results[2].replay.unsure.any()


@pytest.mark.parametrize(
    ("token_ids", "changes", "named"),
    [
        ((), {}, "token_ids"),
        ((5, 49_152), {}, "49152"),
        ((-1,), {}, "-1"),
        (tuple(range(100)) * 82, {}, "context length"),
        ((5,), {"sampling": task(dialect="vllm").sampling}, "dialect"),
        ((5,), {"sampling": task(dialect="greedy").sampling}, "temperature"),
        ((5,), {"messages": ()}, "messages"),
    ],
)
async def test_what_cannot_be_replayed_is_refused_by_name(
    fp32_engine: TransformersEngine,
    tmp_path: Path,
    token_ids: tuple[TokenId, ...],
    changes: dict[str, object],
    named: str,
) -> None:
    one = replace(ReplayTask(task().messages, token_ids, task().sampling, 1), **changes)
    folder = tmp_path / "private"
    async with serve_engine(fp32_engine, folder / "e.sock"), connect_engine(folder / "e.sock") as client:
        for engine in (fp32_engine, client):
            with pytest.raises(TaskRefused, match=named):
                await engine.replay([claimed(task(), (5,)), one])


async def test_a_key_of_more_than_64_bits_is_refused_and_breaks_nothing(
    fp32_engine: TransformersEngine,
) -> None:
    with pytest.raises(TaskRefused, match="run_key"):
        await fp32_engine.replay([ReplayTask(task().messages, (TokenId(5),), task().sampling, 2**64)])
    with pytest.raises(TaskRefused, match="run_key"):
        await answer(fp32_engine, task(run_key=-1))
    await fp32_engine.check()


async def test_an_answer_by_another_model_than_before_is_not_believed(
    fp32_engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "private"
    async with serve_engine(fp32_engine, folder / "e.sock"), connect_engine(folder / "e.sock") as client:
        other = replace(fp32_engine.identity, model_digest="e" * 64)
        monkeypatch.setattr(TransformersEngine, "identity", property(lambda _: other))
        with pytest.raises(EngineUnavailable, match="answered by model eeee"):
            await client.replay([claimed(task(), (5, 6))])


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"{}\n", lambda data: b"\xff\n"],
)
async def test_packed_replays_that_were_damaged_are_noticed(fp32_engine: TransformersEngine, spoil) -> None:
    results = await fp32_engine.replay([claimed(task(), (5, 6, 7))])
    data = b"".join(wire.pack_replayed(fp32_engine.identity.model_digest, results))
    assert len(data) < 43 * 3 + 200
    with pytest.raises((MalformedMessage, ValueError)):
        wire.unpack_replayed(spoil(data))


class Canned:
    """Scores whatever it is asked with the same scores."""

    def __init__(self, identity, scores: list[Scores]) -> None:
        self.identity = identity
        self.scores = scores

    async def score(self, tasks: Sequence[ScoreTask]) -> list[Scores]:
        return self.scores


def scores(positions: int = 3, **changes: object) -> Scores:
    ids = np.tile(np.arange(4, dtype=np.int32), (positions, 1))
    logprobs = np.log(np.tile(np.float32([0.5, 0.3, 0.15, 0.04]), (positions, 1)))
    made = Scores(ids, logprobs, logprobs[:, 0].copy(), np.zeros(positions, np.int32), 9)
    return replace(made, **changes)


async def replay_canned(identity, given: list[Scores]) -> Replayed:
    chosen = Sampling.from_json({"seed": "0" * 16, "max_tokens": 3, "temperature": 1.0, "top_k": 2})
    one = ReplayTask((ChatMessage(role="user", content="x"),), (TokenId(0),) * 3, chosen, 1)
    (result,) = await replay_by_score(Canned(identity, given), [one], top_k=4)
    return result


async def test_scores_that_are_no_numbers_are_marked(fp32_engine: TransformersEngine) -> None:
    broken = scores()
    broken.top_logprobs[0, 2] = np.nan
    broken.claimed_logprobs[2] = np.inf
    result = await replay_canned(fp32_engine.identity, [broken])
    assert np.isnan(result.replay.margins).tolist() == [True, False, True]
    assert np.isnan(result.claimed_logprobs).tolist() == [True, False, True]
    assert result.replay.unsure.tolist() == [True, False, True]
    assert result.replay.best_ids[[0, 2]].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "got 0 scores, expected 1"),
        ([scores(), scores()], "got 2 scores"),
        ([scores(2)], "expected one row for each of 3"),
        ([scores(claimed_logprobs=np.zeros(2, np.float32))], "claimed_logprobs of shape"),
        ([scores(claimed_ranks=np.zeros(4, np.int32))], "claimed_ranks of shape"),
        ([scores(top_logprobs=np.zeros((3, 5), np.float32))], "top_logprobs of shape"),
        ([scores(top_ids=np.full((3, 4), 49_152, np.int32))], "token ids from 49152"),
        ([scores(top_ids=np.full((3, 4), -1, np.int32))], "token ids from -1"),
    ],
)
async def test_scores_that_do_not_fit_what_was_asked_are_an_engine_that_failed(
    fp32_engine: TransformersEngine, given: list[Scores], named: str
) -> None:
    with pytest.raises(EngineUnavailable, match=named):
        await replay_canned(fp32_engine.identity, given)


async def test_no_replay_is_answered_with_none(fp32_engine: TransformersEngine) -> None:
    assert await fp32_engine.replay([]) == []
    assert await replay_by_score(fp32_engine, [], top_k=5) == []
    with pytest.raises(TaskRefused, match="dialect"):
        await replay_by_score(fp32_engine, [claimed(task(dialect="native"), (5,))], top_k=5)
