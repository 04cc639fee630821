"""Each wrapper does exactly what it says, and nothing else."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from targon.engines import Engine, GenerateTask, Step
from targon.protocol.messages import ChatMessage
from targon.redteam.cheats import (
    Canned,
    Disguise,
    OwnSeed,
    Resampled,
    Rewritten,
    RunsOn,
    Truncated,
    WrongSeed,
    shortened,
    without_passage,
    without_system,
)
from targon.redteam.mixtures import (
    InTheTail,
    Recorded,
    Sometimes,
    WhereUnwatched,
    continued,
    looks_like_challenge,
)
from targon.verification.transcripts import Transcript
from tests.redteam.conftest import Cheap, task_of
from tests.tiny_engine import EOS, TinyEngine

pytestmark = pytest.mark.anyio


async def answer(engine: Engine, task: GenerateTask) -> list[Step]:
    async with aclosing(engine.generate(task)) as steps:
        return [step async for step in steps]


async def ids(engine: Engine, task: GenerateTask) -> list[int]:
    return [step.token_id for step in await answer(engine, task)]


def asked_of(engine: TinyEngine) -> GenerateTask:
    return engine.asked[-1]


async def ended_task() -> GenerateTask:
    """A request whose honest answer ends before it has to."""
    for key in range(200):
        task = task_of(key=key)
        if (steps := await answer(TinyEngine(), task))[-1].finish_reason == "stop" and len(steps) > 2:
            return task
    raise AssertionError


async def long_task() -> GenerateTask:
    """A request whose honest answer is as long as it may be."""
    for key in range(200):
        task = task_of(key=key)
        if (await answer(TinyEngine(), task))[-1].finish_reason == "length":
            return task
    raise AssertionError


async def test_a_wrong_seed_is_another_for_each_request_and_all_else_is_as_asked():
    engine = TinyEngine()
    for key in (1, 2):
        task = task_of(key=key)
        await ids(WrongSeed(engine), task)
        assert asked_of(engine).run_key not in (1, 2)
        assert (asked_of(engine).messages, asked_of(engine).sampling) == (task.messages, task.sampling)
    assert engine.asked[0].run_key != engine.asked[1].run_key


async def test_an_own_seed_is_the_same_for_every_request():
    engine = TinyEngine()
    for key in (1, 2):
        await ids(OwnSeed(engine), task_of(key=key))
    assert engine.asked[0].run_key == engine.asked[1].run_key


async def test_other_parameters_are_used_where_they_are_named_and_only_there():
    engine = TinyEngine()
    task = task_of(temperature=0.8, top_p=0.95, top_k=20)
    await ids(Resampled(engine, hotter=-0.1), task)
    assert asked_of(engine).sampling == task.sampling.model_copy(update={"temperature": 0.7})
    await ids(Resampled(engine, top_p=1.0), task)
    assert asked_of(engine).sampling == task.sampling.model_copy(update={"top_p": 1.0})
    await ids(Resampled(engine, top_k=0), task)
    assert asked_of(engine).sampling == task.sampling.model_copy(update={"top_k": 0})
    assert asked_of(engine).run_key == task.run_key


async def test_a_colder_sampler_stays_one_that_exists():
    engine = TinyEngine()
    await ids(Resampled(engine, hotter=-5.0), task_of(temperature=0.3))
    assert asked_of(engine).sampling.temperature == 0.05


async def test_a_rewritten_prompt_is_what_the_model_sees():
    engine = TinyEngine()
    await ids(Rewritten(engine, without_system), task_of())
    assert [message.role for message in asked_of(engine).messages] == ["user"]


def test_a_prompt_loses_what_its_name_says():
    system = ChatMessage(role="system", content="Be short.")
    user = ChatMessage(role="user", content="A long passage of text.\n\nWhat is it about?")
    assert without_system((system, user)) == (user,)
    assert without_system((system,)) == (system,)
    assert without_passage((system, user))[1].content == "What is it about?"
    assert shortened((system, user)) == (
        system,
        ChatMessage(role="user", content="passage of text.\n\nWhat is it about?"),
    )


async def test_a_truncated_answer_claims_the_model_ended_half_way():
    task = await long_task()
    honest, cut = await ids(TinyEngine(), task), await answer(Truncated(TinyEngine()), task)
    assert [step.token_id for step in cut] == [*honest[:11], EOS]
    assert cut[-1].finish_reason == "stop"


async def test_a_padded_answer_repeats_itself_to_the_last_token():
    task = await ended_task()
    honest, padded = await ids(TinyEngine(), task), await answer(RunsOn(TinyEngine()), task)
    said = honest[:-1]
    assert [step.token_id for step in padded] == [said[place % len(said)] for place in range(24)]
    assert [step.finish_reason for step in padded] == [None] * 23 + ["length"]


async def test_padding_leaves_an_answer_of_full_length_alone():
    task = await long_task()
    assert await answer(RunsOn(TinyEngine()), task) == await answer(TinyEngine(), task)


async def test_a_canned_answer_is_everybody_s():
    engine = TinyEngine()
    canned = Canned(engine)
    first = await ids(canned, task_of("one"))
    assert await ids(canned, task_of("two", key=9)) == first
    assert len(engine.asked) == 1


async def test_a_disguise_changes_the_name_and_nothing_else():
    claimed = TinyEngine().identity
    wrapped = Disguise(TinyEngine(wrong=True), claimed)
    assert wrapped.identity is claimed
    assert await ids(wrapped, task_of()) == await ids(TinyEngine(wrong=True), task_of())


async def test_cheating_now_and_then_cheats_on_its_share_of_requests():
    engine = Sometimes(TinyEngine(), TinyEngine(wrong=True), 0.2)
    cheated = 0
    for key in range(400):
        task = task_of(key=key, max_tokens=8)
        given, honest = await ids(engine, task), await ids(TinyEngine(), task)
        cheated += given != honest
        assert given in (honest, await ids(TinyEngine(wrong=True), task))
    assert 55 <= cheated <= 105


async def test_what_looks_watched_is_answered_honestly_and_the_rest_is_not():
    honest, cheat = TinyEngine(), TinyEngine(wrong=True)
    engine = WhereUnwatched(honest, cheat, looks_like_challenge)
    await ids(engine, task_of("A passage.\n\nWhat does it say?"))
    assert (len(honest.asked), len(cheat.asked)) == (1, 0)
    await ids(engine, task_of("Tell me a story."))
    assert (len(honest.asked), len(cheat.asked)) == (1, 1)


async def test_recorded_answers_are_given_to_their_own_requests_alone():
    task = task_of()
    steps = await answer(TinyEngine(), task)
    reason = steps[-1].finish_reason
    assert reason is not None
    recorded = Recorded(TinyEngine(), [Transcript.of(0, task, [step.token_id for step in steps], reason)])
    again = await answer(recorded, task)
    assert [step.token_id for step in again] == [step.token_id for step in steps]
    assert again[-1].finish_reason == reason
    with pytest.raises(Exception, match="run key 0x8, not among them"):
        await ids(recorded, task_of(key=8))


@pytest.mark.parametrize("length", [1, 5, 23])
async def test_an_answer_that_is_continued_by_replay_is_the_engine_s_own(length: int):
    for task in (await long_task(), await ended_task()):
        whole = await answer(TinyEngine(), task)
        beginning = [step.token_id for step in whole[: min(length, len(whole) - 1)]]
        for guess in ((), [step.token_id for step in whole[len(beginning) :]], (3,) * 30):
            found, reason = await continued(TinyEngine(), task, beginning, guess)
            assert found == [step.token_id for step in whole]
            assert reason == whole[-1].finish_reason


async def test_an_answer_with_stop_strings_is_not_continued():
    with pytest.raises(Exception, match="expected none"):
        await continued(TinyEngine(), task_of(stop=("x",)), [])


async def test_a_cheat_in_the_tail_begins_honestly_and_goes_on_as_the_cheat_would():
    task = await long_task()
    given, whole = await ids(InTheTail(TinyEngine(), Cheap()), task), await ids(TinyEngine(), task)
    assert given[:12] == whole[:12]
    assert given == (await continued(Cheap(), task, whole[:12]))[0]
    assert given != whole


async def test_an_answer_that_ends_before_its_tail_is_honest():
    for key in range(200):
        task = task_of(key=key)
        whole = await answer(TinyEngine(), task)
        if len(whole) <= 12:
            break
    assert await ids(InTheTail(TinyEngine(), Cheap()), task) == [step.token_id for step in whole]
