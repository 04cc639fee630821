"""Oracles that lend their engine and lie, stall or send what can't be read: none ends a light verifier, or is gone by
while more are honest."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from types import SimpleNamespace

import anyio
import numpy as np
import pytest

from targon.engines import (
    EngineBusy,
    EngineUnavailable,
    GenerateTask,
    Replayed,
    ReplayTask,
    Step,
    TaskRefused,
)
from targon.protocol.messages import ChatMessage
from targon.protocol.primitives import TokenId
from targon.protocol.references import ReferenceTask
from targon.verifier import borrowed as borrowed_module
from targon.verifier import lenders as lenders_module
from targon.verifier.board import GRACE_S
from targon.verifier.borrowed import borrow
from tests.tiny_engine import TinyEngine

from .lending import LyingEngine, Place, WordyEngine, hotkey, hurry, lent
from .test_borrowed import SAID, SAMPLING, dishonest, generated, honest

pytestmark = pytest.mark.anyio

SCALE = SAMPLING.temperature


class Liar(TinyEngine):
    """Says of a replay what a test has it say."""

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        true = await super().replay(tasks)
        return [
            dataclasses.replace(said, replay=dataclasses.replace(said.replay, **self.lie(said, task)))
            for said, task in zip(true, tasks, strict=True)
        ]

    def lie(self, said: Replayed, task: ReplayTask) -> dict[str, np.ndarray]:
        raise NotImplementedError


class OnCut(Liar):
    """Every draw hangs on where a cut falls: nothing that a prover claims counts against it."""

    def lie(self, said: Replayed, task: ReplayTask) -> dict[str, np.ndarray]:
        marked = np.ones(len(task.token_ids), dtype=np.bool_)
        clear = said.replay.best_ids == np.array(task.token_ids)
        return {"on_cut": marked, "margins": np.where(clear, 0.0, said.replay.margins)}


class Unsure(Liar):
    """Is sure of no candidates, and so contradicts nobody, whatever it says of margins."""

    def lie(self, said: Replayed, task: ReplayTask) -> dict[str, np.ndarray]:
        count = len(task.token_ids)
        claimed = np.array(task.token_ids, dtype=np.int64)
        return {
            "unsure": np.ones(count, dtype=np.bool_),
            "best_ids": claimed,
            "margins": np.zeros(count),
            "among": np.ones(count, dtype=np.bool_),
            "claimed_rivals": np.zeros(count, dtype=np.uint8),
        }


class ByOneLogit(Liar):
    """Every gap and margin is one logit less than it is."""

    def lie(self, said: Replayed, task: ReplayTask) -> dict[str, np.ndarray]:
        replay = said.replay
        missed = replay.best_ids != np.array(task.token_ids)
        gaps = np.maximum(replay.gaps - 0.99 / SCALE, 0.0)
        return {
            "gaps": gaps,
            "margins": np.where(missed, np.maximum(replay.margins - 0.99 / SCALE, gaps), 0.0),
        }


class WithinRounding(Liar):
    """Every gap and margin is less by what rounding could explain."""

    def lie(self, said: Replayed, task: ReplayTask) -> dict[str, np.ndarray]:
        replay = said.replay
        missed = replay.best_ids != np.array(task.token_ids)
        gaps = np.maximum(replay.gaps - 0.2 / SCALE, 0.0)
        return {
            "gaps": gaps,
            "margins": np.where(missed, np.maximum(replay.margins - 0.2 / SCALE, gaps), 0.0),
        }


@pytest.mark.parametrize("liar", [OnCut, Unsure, ByOneLogit, WithinRounding])
async def test_a_liar_that_is_asked_first_is_not_gone_by_while_two_are_honest(liar: type[Liar]) -> None:
    task = await dishonest()
    (own,) = await TinyEngine().replay([task])
    async with lent(liar(), TinyEngine(), TinyEngine()) as lenders:
        (told,) = await (await borrow(lenders, 2)).replay([task])
        counted = lenders.counted()
    for name in own.replay.__slots__:
        assert np.array_equal(getattr(told.replay, name), getattr(own.replay, name), equal_nan=True), name
    assert counted[hotkey(0), "agreed" if liar is WithinRounding else "outvoted"] >= 1


async def test_one_that_may_lie_within_rounding_has_the_others_waited_for() -> None:
    class Late(TinyEngine):
        async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
            await anyio.sleep(2 * GRACE_S)  # longer than those wait who agree in all
            return await super().replay(tasks)

    task = await dishonest()
    (own,) = await TinyEngine().replay([task])
    async with lent(WithinRounding(), TinyEngine(), Late(), grace_s=GRACE_S) as lenders:
        (told,) = await (await borrow(lenders, 2)).replay([task])
    assert np.array_equal(told.replay.margins, own.replay.margins)


# -- what can't be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["[" * 200_000, "{}", "null", "no JSON", '{"model": {"type": "BPE"}}'])
async def test_a_tokenizer_that_cannot_be_read_has_texts_asked_for(tokenizer: str) -> None:
    class Handing(TinyEngine):
        async def tokenizer_json(self) -> str:
            return tokenizer

    async with lent(Handing(), Handing()) as lenders:
        assert await (await borrow(lenders, 2)).text(tuple(map(TokenId, (8, 5, 0))), ()) == "he"


async def test_one_of_three_that_hands_out_another_tokenizer_is_outvoted() -> None:
    class Nested(WordyEngine):
        async def tokenizer_json(self) -> str:
            return "[" * 200_000

    async with lent(Nested(), WordyEngine(), WordyEngine()) as lenders:
        assert await (await borrow(lenders, 2)).text(tuple(map(TokenId, (8, 5, 0))), ()) == "he"
        assert lenders.counted()[hotkey(0), "outvoted"] == 1


async def test_a_prompt_of_tokens_that_the_model_lacks_is_none() -> None:
    class Wrong(TinyEngine):
        async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
            return (TokenId(2_000_000_000),)

    async with lent(Wrong()) as lenders:
        borrowed = await borrow(lenders, 1)
        with pytest.raises(EngineUnavailable, match="got token 2000000000"):
            await borrowed.prompt_token_ids(SAID)


async def test_of_long_prompts_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(TinyEngine):
        async def prompt_token_ids(self, messages: Sequence[ChatMessage]) -> tuple[TokenId, ...]:
            self.counted = getattr(self, "counted", 0) + 1
            return (TokenId(1),) * 600

    monkeypatch.setattr(borrowed_module, "PROMPT_TOKENS_KEPT", 1_500)
    engine = Long()
    async with lent(engine) as lenders:
        borrowed = await borrow(lenders, 1)
        for number in (0, 1, 2, 2, 1, 0):
            message = ChatMessage(role="user", content=f"Question {number}?")
            assert len(await borrowed.prompt_token_ids((message,))) == 600
    assert engine.counted == 4  # the first was forgotten for the third


async def test_an_oracle_that_signs_for_another_engine_than_it_says_is_none() -> None:
    class TwoFaced(TinyEngine):
        looked = 0

        @property
        def identity(self):  # type: ignore[no-untyped-def]
            self.looked += 1
            return dataclasses.replace(super().identity, engine=f"tiny {self.looked}")

    async with lent(TwoFaced()) as lenders:
        with pytest.raises(EngineUnavailable, match="another engine than its identity"):
            await borrow(lenders, 1)


async def test_a_ground_truth_of_tokens_that_the_model_lacks_is_none() -> None:
    class Foreign(TinyEngine):
        async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
            yield Step(TokenId(self.identity.vocab_size), "x", -1.0, "length")

    async with lent(Foreign(), TinyEngine()) as lenders:
        assert await generated(await borrow(lenders, 2)) == await generated(TinyEngine())
        assert lenders.counted()[hotkey(0), "faulty"] == 1


class Unwilling(TinyEngine):
    """Refuses whatever takes work."""

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        if task.messages:
            raise TaskRefused("it doesn't like to")
        yield Step(TokenId(1), "", 0.0)

    async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
        raise TaskRefused("it doesn't like to")


async def test_those_who_refuse_decide_nothing_while_others_are_away_or_disagree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("targon.verifier.board.GRACE_S", 30.0)  # all are heard, however slow the machine
    away = TinyEngine()
    async with lent(Unwilling(), away) as lenders:
        borrowed = await borrow(lenders, 1)
        away.down = True
        with pytest.raises(EngineUnavailable, match="no oracle answers"):
            await generated(borrowed)
    async with lent(Unwilling(), Unwilling(), LyingEngine(), TinyEngine()) as lenders:
        borrowed = await borrow(lenders, 2)
        with pytest.raises(EngineUnavailable, match="no 2 agree"):
            await borrowed.replay([await dishonest()])


# -- what isn't there, or not in time ----------------------------------------------------------------------------


class Stalling(TinyEngine):
    """Answers everything at once, but for queries."""

    async def generate(self, task: GenerateTask) -> AsyncGenerator[Step, None]:
        await anyio.sleep_forever()
        yield Step(TokenId(1), "", 0.0, "length")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a test says that the time is, where it is counted for how long an oracle isn't asked."""
    told = SimpleNamespace(now_s=0.0)
    seen = SimpleNamespace(current_time=lambda: told.now_s, sleep=anyio.sleep)
    monkeypatch.setattr(lenders_module, "anyio", seen)
    return told


async def test_one_that_stalls_over_queries_holds_nobody_up_twice(clock: SimpleNamespace) -> None:
    async with AsyncExitStack() as stack:
        lenders = await stack.enter_async_context(lent(Stalling(), TinyEngine(), TinyEngine()))
        client = await hurry(lenders, stack)
        borrowed = await borrow(lenders, 2)
        await generated(borrowed)
        assert lenders.counted()[hotkey(0), "away"] == 1
        await borrowed.replay([await honest()])  # it answers this, and is forgiven nothing by it
        await generated(borrowed)
        assert (client.sent, lenders.counted()[hotkey(0), "away"]) == (1, 1)


async def test_one_that_stays_silent_is_waited_for_ever_more_seldom(clock: SimpleNamespace) -> None:
    async with AsyncExitStack() as stack:
        lenders = await stack.enter_async_context(lent(Stalling(), TinyEngine()))
        client = await hurry(lenders, stack)
        borrowed = await borrow(lenders, 1)
        waited = []
        for now_s in (0, 19, 20, 59, 60, 139, 140, 299, 300, 619, 620, 1_259, 1_260, 1_899, 1_900):
            clock.now_s, sent = float(now_s), client.sent
            await generated(borrowed)
            if client.sent > sent:
                waited.append(now_s)
    assert waited == [0, 20, 60, 140, 300, 620, 1_260, 1_900]  # twice as long each time, as far as that goes


async def test_one_that_answers_again_is_waited_for_as_if_it_had_never_been_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lenders_module, "AWAY_S", 0.3)
    async with lent(TinyEngine(), TinyEngine()) as lenders:
        first = lenders.lenders[0]
        for _ in range(2):
            for _ in range(3):  # of several tasks at once, which counts as one
                lenders.silent(first, "identity")
            assert first not in lenders.awake(1, "identity")
            await anyio.sleep(0.4)
            assert first in lenders.awake(1, "identity")
            await lenders.ask(first, ReferenceTask(kind="identity"))


async def test_one_that_is_busy_is_asked_once_more_unless_it_says_to_come_much_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Busy(TinyEngine):
        asked_to_replay = 0

        async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
            self.asked_to_replay += 1
            if self.asked_to_replay in (1, 3):
                raise EngineBusy("too many requests")
            return await super().replay(tasks)

    engine = Busy()
    async with lent(engine) as lenders:
        borrowed = await borrow(lenders, 1)
        monkeypatch.setattr("targon.oracle.reference.RETRY_S", 0.1)
        await borrowed.replay([await honest()])
        assert engine.asked_to_replay == 2
        monkeypatch.setattr("targon.oracle.reference.RETRY_S", lenders_module.LONGEST_PAUSE_S + 1)
        with pytest.raises(EngineUnavailable, match="queue_full"):
            await borrowed.replay([await honest()])
        assert engine.asked_to_replay == 3


async def test_oracles_may_be_named_by_hosts() -> None:
    async with lent(TinyEngine()) as lenders:
        (lender,) = lenders.lenders
        lenders.lenders = (dataclasses.replace(lender, axon=Place(lender.axon.port, "localhost")),)
        await (await borrow(lenders, 1)).check()
        lenders.lenders = (dataclasses.replace(lender, axon=Place(lender.axon.port, "nowhere.invalid")),)
        with pytest.raises(EngineUnavailable, match="address can't be found"):
            await borrow(lenders, 1)
